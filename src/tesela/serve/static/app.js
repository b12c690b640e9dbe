// The page: one image, its most probable classes, and a heat map for the class that is chosen; or its mask and legend.
// Every text of the server is set as text, never as markup. Answers that come too late (another image, another class) are dropped.
"use strict";

const at = (id) => document.getElementById(id);
const state = { models: [], file: null, key: "", image: 0, map: 0, url: null };

async function ask(path, body) {
  const headers = {};
  if (body) headers["Content-Type"] = "application/octet-stream";
  if (state.key) headers.Authorization = `Bearer ${state.key}`;
  let answer;
  try {
    answer = await fetch(path, { method: body ? "POST" : "GET", headers, body });
  } catch {
    throw { message: "The server does not answer.", hint: "Is it still running?" };
  }
  const result = await answer.json().catch(() => ({ code: "unknown", message: "The server's answer cannot be read.", hint: "" }));
  if (answer.ok) return result;
  if (result.code === "unauthorized") at("key-form").hidden = false;
  throw result;
}

function say(text, { hint = "", wrong = false } = {}) {
  const place = at("message");
  place.className = wrong ? "wrong" : "";
  place.textContent = text;
  if (hint) {
    const small = document.createElement("small");
    small.textContent = hint;
    place.append(small);
  }
}

const sentence = (text) => (text ? text[0].toUpperCase() + text.slice(1).replace(/\.?$/, ".") : "");
const complain = (error) => say(sentence(error.message || "Something failed"), { hint: sentence(error.hint || ""), wrong: true });
const model = () => state.models[Number(at("model").value) || 0];

async function start() {
  try {
    state.models = (await ask("/v1/models")).models;
  } catch (error) {
    complain(error);
    return;
  }
  at("key-form").hidden = true;
  at("model").replaceChildren(...state.models.map((one, index) => new Option(one.name, String(index))));
  at("model-field").hidden = state.models.length < 2;
  describe();
  if (state.file) classify();
  else say(model().task === "segment" ? "The classes of the pixels appear here." : "The most probable classes appear here.");
}

function describe() {
  const one = model();
  const about = `${one.name}: ${one.labels.length} classes, ${one.height} × ${one.width} px`;
  at("about").textContent = about;
  document.title = `${one.name} · tesela`;
}

function take(file) {
  if (!file) return;
  state.file = file;
  if (state.url) URL.revokeObjectURL(state.url);
  state.url = URL.createObjectURL(file);
  at("image").src = state.url;
  at("image").onload = () => at("picture").classList.toggle("small", at("image").naturalWidth < 160);
  at("image").onerror = () => at("picture").classList.remove("small");
  at("picture").hidden = false;
  at("again").hidden = false;
  at("stage").classList.remove("empty");
  classify();
}

async function classify() {
  const turn = ++state.image;
  state.map += 1;
  clear();
  say("Looking …");
  const began = performance.now();
  try {
    const masks = model().task === "segment";
    const query = `${masks ? "" : "top=5&"}model=${encodeURIComponent(model().name)}`;
    const found = await ask(`/v1/${encodeURIComponent(model().task)}?${query}`, state.file);
    if (turn !== state.image) return;
    say("");
    at("timing").textContent = `answered in ${Math.round(performance.now() - began)} ms`;
    if (masks) {
      showMask(found);
      return;
    }
    show(found.top);
    if (model().explainable) explain(found.top[0]);
  } catch (error) {
    if (turn === state.image) complain(error);
  }
}

function clear() {
  at("heat").classList.remove("mask");
  at("layer-name").textContent = "Heat map";
  at("bars").replaceChildren();
  at("heat").hidden = true;
  at("explained").hidden = true;
  at("opacity-field").hidden = true;
  at("timing").textContent = "";
}

function show(scores) {
  at("bars").replaceChildren(...scores.map((score) => bar(score)));
}

function showMask(found) {
  at("heat").src = `data:image/png;base64,${found.mask}`;
  at("heat").alt = "mask of the image's classes";
  at("heat").classList.add("mask");
  at("heat").hidden = false;
  at("layer-name").textContent = "Mask";
  at("opacity-field").hidden = false;
  at("bars").replaceChildren(...found.areas.map((area) => legend(area)));
}

function legend(area) {
  const row = document.createElement("div");
  row.className = "legend";
  const swatch = document.createElement("i");
  swatch.style.background = area.color;
  row.append(swatch, part("label", area.label), part("value", `${(area.share * 100).toFixed(1)} %`));
  const item = document.createElement("li");
  item.append(row);
  return item;
}

function bar(score) {
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.index = String(score.index);
  button.disabled = !model().explainable;
  button.setAttribute("aria-pressed", "false");
  const space = "http://www.w3.org/2000/svg";
  const drawing = document.createElementNS(space, "svg");
  drawing.setAttribute("aria-hidden", "true");
  const filled = document.createElementNS(space, "rect");
  filled.setAttribute("width", `${Math.max(0.4, score.probability * 100)}%`);
  filled.setAttribute("height", "100%");
  drawing.append(filled);
  button.append(drawing, part("label", score.label), part("value", `${(score.probability * 100).toFixed(1)} %`));
  button.addEventListener("click", () => explain(score));
  const item = document.createElement("li");
  item.append(button);
  return item;
}

function part(name, text) {
  const span = document.createElement("span");
  span.className = name;
  span.textContent = text;
  return span;
}

async function explain(score) {
  const turn = ++state.map;
  for (const button of at("bars").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.dataset.index === String(score.index)));
  }
  at("explained").hidden = false;
  at("explained").textContent = `Computing what speaks for “${score.label}” …`;
  try {
    const found = await ask(`/v1/explain?target=${score.index}&model=${encodeURIComponent(model().name)}`, state.file);
    if (turn !== state.map) return;
    at("heat").src = `data:image/png;base64,${found.heatmap}`;
    at("heat").alt = `heat map for ${found.target.label}`;
    at("heat").hidden = false;
    at("opacity-field").hidden = false;
    const [rows, columns] = found.grid;
    at("explained").textContent = `Bright places spoke for “${found.target.label}” (${found.method.replaceAll("_", " ")}, ${rows} × ${columns} patches). Choose another class to see its map.`;
  } catch (error) {
    if (turn !== state.map) return;
    at("heat").hidden = true;
    at("explained").textContent = `No heat map: ${error.message || "it failed"}.`;
  }
}

function listen() {
  const stage = at("stage");
  at("file").addEventListener("change", () => {
    take(at("file").files[0]);
    at("file").value = "";
  });
  for (const name of ["dragenter", "dragover"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      stage.classList.add("over");
    });
  }
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) stage.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    stage.classList.remove("over");
    take(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => take(event.clipboardData.files[0]));
  at("opacity").addEventListener("input", () => {
    at("heat").style.setProperty("opacity", String(at("opacity").value / 100));
  });
  at("model").addEventListener("change", () => {
    describe();
    if (state.file) classify();
  });
  at("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    state.key = at("key").value;
    start();
  });
  at("heat").style.setProperty("opacity", "0.75");
}

listen();
start();
