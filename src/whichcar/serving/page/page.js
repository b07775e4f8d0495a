"use strict";

const AT_ONCE = 2; // requests under way
const TRIES = 6; // of a request that the server has no room for
const find = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)}\u00a0%`;
const waiting = [];
let running = 0;
let token = "";
let refused = []; // photos that wait for a token

function add(files) {
  const photos = [...files]; // whether each is an image, the server says
  if (!photos.length) {
    say("There was no image in that.");
    return;
  }
  for (const file of photos) {
    const article = find("answer").content.firstElementChild.cloneNode(true);
    const image = article.querySelector("img");
    image.src = URL.createObjectURL(file);
    image.alt = `Your photo ${file.name}`;
    image.addEventListener("error", () => (image.parentElement.hidden = true)); // the browser cannot show it
    article.querySelector("table").hidden = true;
    title(article, "Waiting …", true);
    find("answers").prepend(article);
    waiting.push({ file, article });
  }
  say(photos.length === 1 ? "Looking at the photo …" : `Looking at ${photos.length} photos …`);
  next();
}

function next() {
  while (running < AT_ONCE && waiting.length) {
    running += 1;
    const photo = waiting.shift();
    answer(photo)
      .catch(() => problem(photo, "The server cannot be reached."))
      .finally(() => {
        running -= 1;
        next();
      });
  }
}

async function answer(photo) {
  title(photo.article, "Looking …", true);
  const confidence = find("confidence").value;
  const query = confidence ? `?confidence=${confidence}` : "";
  for (let attempt = 1; ; attempt += 1) {
    const form = new FormData();
    form.append("image", photo.file, photo.file.name || "photo");
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const reply = await fetch(`/predict${query}`, { method: "POST", body: form, headers });
    if (reply.ok) {
      show(photo, await reply.json());
      return;
    }
    if (reply.status === 401) {
      title(photo.article, "Waiting for a token …", true);
      refused.push(photo);
      find("access").hidden = false;
      find("token").focus();
      say("This server needs a token.");
      return;
    }
    const seconds = Number(reply.headers.get("Retry-After"));
    if (!seconds || attempt === TRIES) {
      const text = await reply.json().then((body) => body.error, () => "The server cannot answer now.");
      problem(photo, text);
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 1000 * seconds * (0.5 + Math.random())));
  }
}

function show(photo, reply) {
  const { article } = photo;
  const row = reply.images[0];
  const best = row.classes[0];
  const said = row.answer || { level: "class", name: best.name, probability: best.probability };
  const known = said.level !== "";
  title(article, known ? said.name : "Not sure enough to say");
  article.querySelector(".sure").textContent = sureness(said, row.answer !== null, known);
  const rows = row.classes.map(({ name, probability }) => {
    const line = document.createElement("tr");
    const bar = document.createElement("i");
    bar.style.setProperty("--share", `${100 * probability}%`);
    line.append(cell("th", name), cell("td", percent(probability), "n"), cell("td", bar, "bar"));
    line.firstChild.scope = "row";
    return line;
  });
  article.querySelector("tbody").replaceChildren(...rows);
  article.querySelector("table").hidden = false;
  article.querySelector(".seen").textContent = seen(row.crop, photo.file.name);
  if (row.crop && row.crop.vehicle) frame(article, row.crop.box);
  say(`${photo.file.name}: ${known ? said.name : "not sure enough to say"}, ${percent(said.probability)}`);
}

function sureness(said, promised, known) {
  if (!known) return `The best guess of the make has a probability of ${percent(said.probability)} only.`;
  const level = promised && said.level !== "class" ? `, and no more than the ${said.level} is certain enough` : "";
  return `Probability ${percent(said.probability)}${level}.`;
}

function seen(crop, name) {
  if (!crop) return name;
  if (!crop.vehicle) return `${name}: no vehicle was found, so the whole image was used.`;
  const others = crop.candidates > 1 ? `, the largest of ${crop.candidates} vehicles` : "";
  return `${name}: the ${crop.vehicle} in the frame${others} (detected with ${percent(crop.score)}).`;
}

function frame(article, box) {
  const image = article.querySelector("img");
  const place = () => {
    const { naturalWidth: width, naturalHeight: height } = image;
    if (!width) return;
    const { style } = article.querySelector(".frame");
    style.left = `${(100 * box.left) / width}%`;
    style.top = `${(100 * box.top) / height}%`;
    style.width = `${(100 * (box.right - box.left)) / width}%`;
    style.height = `${(100 * (box.bottom - box.top)) / height}%`;
    article.querySelector(".frame").hidden = false;
  };
  if (image.complete) place();
  else image.addEventListener("load", place, { once: true });
}

function problem(photo, text) {
  title(photo.article, "No answer");
  const line = photo.article.querySelector(".sure");
  line.textContent = text;
  line.classList.add("error");
  photo.article.querySelector(".seen").textContent = photo.file.name;
  say(text);
}

function title(article, text, unfinished = false) {
  const heading = article.querySelector("h2");
  heading.textContent = text;
  heading.classList.toggle("waiting", unfinished);
}

function cell(kind, content, name = "") {
  const made = document.createElement(kind);
  made.append(content);
  if (name) made.className = name;
  return made;
}

function say(text) {
  find("status").textContent = text;
}

async function describe() {
  const model = await (await fetch("/model")).json();
  const classes = model.class_names.length.toLocaleString("en");
  find("about").textContent =
    `Make, model and year of the car in a photo, one of ${classes} classes. ` +
    "Photos are classified by this server and not stored.";
  if (!model.confidences.length) return;
  const options = [...model.confidences].sort().map((share) => {
    const text = Number((100 * share).toFixed(2));
    return new Option(`${text} of 100 times`, share, false, share === 0.95);
  });
  find("confidence").replaceChildren(...options, new Option("at any probability", ""));
  find("accuracy").hidden = false;
}

for (const id of ["files", "camera"]) {
  find(id).addEventListener("change", (event) => {
    add(event.target.files);
    event.target.value = "";
  });
}
find("form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = find("token").value.trim();
  find("access").hidden = true;
  waiting.push(...refused);
  refused = [];
  next();
});
document.addEventListener("paste", (event) => {
  if (event.target.id === "token") return;
  add(event.clipboardData.files);
});
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    find("drop").classList.add("over");
  });
}
for (const kind of ["dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    find("drop").classList.remove("over");
    if (kind === "drop") add(event.dataTransfer.files);
  });
}
describe().catch(() => say("The server cannot be reached."));
