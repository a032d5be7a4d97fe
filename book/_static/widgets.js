// The widgets ask for MathJax 2 after every label; with MathJax 3 there is nothing to do.
function old() {
  if (window.MathJax && !window.MathJax.Hub) window.MathJax.Hub = { Queue() {} };
}
for (const moment of ["DOMContentLoaded", "load"]) window.addEventListener(moment, old, true);
old();

// Sliders of interactive figures: say name and value to screen readers, which ipywidgets leaves out.
function label(slider) {
  const name = slider.querySelector(".widget-label");
  const value = slider.querySelector(".widget-readout");
  for (const handle of slider.querySelectorAll(".noUi-handle")) {
    handle.setAttribute("aria-label", name ? name.textContent.trim() : "choose a value");
    if (value) handle.setAttribute("aria-valuetext", value.textContent.trim());
  }
}

// Radio buttons: one group with a name, which also makes the arrow keys stay within it.
function group(radio, number) {
  const box = radio.querySelector(".widget-radio-box");
  if (!box) return;
  box.setAttribute("role", "radiogroup");
  box.setAttribute("aria-label", radio.querySelector(".widget-label").textContent.trim());
  for (const input of box.querySelectorAll("input")) input.name = `choice-${number}`;
}

// The figure itself: say what is shown when another frame comes, and show no tooltip "null".
function figure(controls) {
  if (!controls.querySelector(":scope > .widget-slider, :scope > .widget-radio")) return;
  controls.lastElementChild.setAttribute("aria-live", "polite");
  for (const text of controls.querySelectorAll(".widget-label[title='null']")) text.removeAttribute("title");
}

new MutationObserver(() => {
  document.querySelectorAll(".widget-slider").forEach(label);
  document.querySelectorAll(".widget-radio").forEach(group);
  document.querySelectorAll(".widget-vbox").forEach(figure);
}).observe(document, { childList: true, subtree: true, characterData: true });
