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
