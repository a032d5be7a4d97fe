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

new MutationObserver(() => document.querySelectorAll(".widget-slider").forEach(label)).observe(document, {
  childList: true,
  subtree: true,
  characterData: true,
});
