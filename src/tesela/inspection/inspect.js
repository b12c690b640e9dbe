// The attention browser: one canvas for each layer and head shows what the chosen token attends to.
(() => {
  const source = document.getElementById("attention");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const [rows, columns] = data.grid;
  const patches = rows * columns;
  const bytes = data.images.map((image) => Uint8Array.from(atob(image.maps), (letter) => letter.charCodeAt(0)));
  const table = Uint8Array.from(atob(data.colours), (letter) => letter.charCodeAt(0));
  const stage = document.getElementById("stage");
  const picture = stage.querySelector("img");
  const mark = stage.querySelector("i");
  const description = document.getElementById("description");
  const whole = document.getElementById("class-token");
  const canvases = [...document.querySelectorAll("#heads canvas")];
  const thumbnails = [...document.querySelectorAll("[data-image]")];
  let image = 0;
  let query = 0;

  function draw() {
    canvases.forEach((canvas, map) => {
      const context = canvas.getContext("2d");
      const pixels = context.createImageData(columns, rows);
      const start = (map * data.queries.length + query) * patches;
      for (let patch = 0; patch < patches; patch += 1) {
        const colour = bytes[image][start + patch] * 3;
        pixels.data.set([table[colour], table[colour + 1], table[colour + 2], 255], patch * 4);
      }
      context.putImageData(pixels, 0, 0);
      const peak = data.images[image].peak[map * data.queries.length + query];
      canvas.title = `layer ${Math.floor(map / data.heads) + 1}, head ${(map % data.heads) + 1}: largest weight ${peak.toFixed(3)}`;
    });
    const token = data.queries[query];
    mark.hidden = token < 0;
    if (token >= 0) {
      const row = Math.floor(token / columns);
      const column = token % columns;
      Object.assign(mark.style, {
        left: `${(column / columns) * 100}%`, top: `${(row / rows) * 100}%`,
        width: `${100 / columns}%`, height: `${100 / rows}%`,
      });
      description.textContent = `${data.images[image].name}: patch in row ${row + 1}, column ${column + 1}.`;
    } else {
      description.textContent = `${data.images[image].name}: the class token, which the head reads.`;
    }
    whole?.setAttribute("aria-pressed", String(token < 0));
    thumbnails.forEach((button, index) => button.setAttribute("aria-pressed", String(index === image)));
  }

  function nearest(row, column) {
    let best = query;
    let least = Infinity;
    data.queries.forEach((token, index) => {
      if (token < 0) return;
      const distance = (Math.floor(token / columns) - row) ** 2 + ((token % columns) - column) ** 2;
      if (distance < least) [best, least] = [index, distance];
    });
    return best;
  }

  function point(event) {
    const box = stage.getBoundingClientRect();
    const row = Math.floor(((event.clientY - box.top) / box.height) * rows);
    const column = Math.floor(((event.clientX - box.left) / box.width) * columns);
    const next = nearest(row, column);
    if (next !== query) {
      query = next;
      draw();
    }
  }

  function step(event) {
    const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    const token = Math.max(0, data.queries[query]);
    const [row, column] = [Math.floor(token / columns), token % columns];
    const others = data.queries.map((other, index) => [other, index]).filter(([other]) => {
      const along = (Math.floor(other / columns) - row) * move[0] + ((other % columns) - column) * move[1];
      const across = (Math.floor(other / columns) - row) * move[1] + ((other % columns) - column) * move[0];
      return other >= 0 && along > 0 && across === 0;
    });
    const size = ([other]) => Math.abs(other - token);
    if (data.queries[query] < 0) query = nearest(0, 0);
    else if (others.length) query = others.reduce((one, other) => (size(other) < size(one) ? other : one))[1];
    draw();
  }

  stage.addEventListener("pointermove", (event) => { if (event.pointerType === "mouse") point(event); });
  stage.addEventListener("pointerdown", point);
  stage.addEventListener("keydown", step);
  whole?.addEventListener("click", () => { query = data.queries.indexOf(-1); draw(); });
  thumbnails.forEach((button, index) => button.addEventListener("click", () => {
    image = index;
    picture.src = button.querySelector("img").src;
    draw();
  }));
  draw();
})();
