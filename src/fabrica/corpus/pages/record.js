"use strict";
for (const bar of document.querySelectorAll(".sliders")) {
  const n = bar.dataset.view, data = JSON.parse(document.getElementById("d" + n).textContent);
  const raw = atob(data.pixels), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  const values = new Int16Array(bytes.buffer), canvas = document.getElementById("v" + n);
  const size = canvas.width * canvas.height, context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
  const find = (name) => document.getElementById(name + n);
  const show = (input, text) => { if (input) input.nextElementSibling.textContent = text; };
  const number = (v) => Number.isInteger(v) ? String(v) : Number(v).toPrecision(4);
  function draw() {
    const w = Number(find("w").value), l = Number(find("l").value), s = find("s") ? Number(find("s").value) : 0;
    const low = l - w / 2, from = s * size;
    for (let i = 0; i < size; i++) {
      const v = 255 * (values[from + i] * data.scale + data.offset - low) / w, p = 4 * i;
      image.data[p] = image.data[p + 1] = image.data[p + 2] = v; image.data[p + 3] = 255;
    }
    context.putImageData(image, 0, 0);
    show(find("w"), number(w) + data.unit); show(find("l"), number(l) + data.unit); show(find("s"), (s + 1) + " of " + data.slices);
  }
  for (const input of bar.querySelectorAll("input")) input.addEventListener("input", draw);
  for (const button of document.querySelectorAll("button[data-view='" + n + "']")) button.addEventListener("click", () => {
    find("w").value = button.dataset.w; find("l").value = button.dataset.l; draw();
  });
  draw();
}
