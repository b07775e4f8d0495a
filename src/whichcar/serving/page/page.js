import { heatMap, where } from "./map.js";

const AT_ONCE = 2; // requests under way
const TRIES = 6; // of a request that the server has no room for
const LEAST = 0.001; // probability of a class that is shown, unless it is the best
const OUTCOMES = ["identified", "not certain enough", "without a vehicle", "without an answer"]; // of a photo
const find = (id) => document.getElementById(id);
// Returns a percentage, with a decimal below 10 and above 99; 100 only where it is certain.
const percent = (share) => {
  const shown = share < 1 ? Math.min(100 * share, 99.9) : 100;
  return `${shown.toFixed(share < 0.1 || (share > 0.99 && share < 1) ? 1 : 0)}\u00a0%`;
};
const waiting = [];
let running = 0;
let token = "";
let coarsest = "class"; // name of the level with the fewest groups
let cropping = false; // whether the model looks at vehicles rather than at whole images
let refused = []; // photos that wait for a token

function add(files) {
  const photos = [...files]; // whether each is an image, the server says
  if (!photos.length) {
    say("There was no image in that.");
    return;
  }
  const given = { count: photos.length, outcomes: [] };
  for (const file of photos) {
    const article = find("answer").content.firstElementChild.cloneNode(true);
    const image = article.querySelector("img");
    image.src = URL.createObjectURL(file);
    image.alt = `Your photo ${file.name}`;
    image.addEventListener("error", () => (image.parentElement.hidden = true)); // the browser cannot show it
    article.querySelector("details").hidden = true;
    title(article, "Waiting …", true);
    find("answers").prepend(article);
    waiting.push({ file, article, given });
  }
  say(photos.length === 1 ? "Looking at the photo …" : `Looking at ${photos.length} photos …`);
  next();
}

function next() {
  while (running < AT_ONCE && waiting.length) {
    running += 1;
    const photo = waiting.shift();
    answer(photo)
      .catch(async () => problem(photo, await unsent(photo.file)))
      .finally(() => {
        running -= 1;
        next();
      });
  }
}

async function answer(photo) {
  title(photo.article, "Looking …", true);
  await ready;
  const row = await asked(photo, cropping ? { vehicles: "all" } : {});
  if (row && row.vehicles && !row.vehicles.length) {
    const whole = await asked(photo, {});
    if (whole) show(photo, [whole]);
  } else if (row) show(photo, row.vehicles || [row]);
}

// Returns why a file could not be sent: the browser cannot read it, or not any more; or there is no server.
function unsent(file) {
  return file.stream().getReader().read().then( // a slice of a deleted file is empty, not an error
    () => "The server cannot be reached.",
    () => "This cannot be read; it is a folder, or a file that was changed, moved or deleted.");
}

// Returns the server's answer for a photo; undefined where the page says why there is none.
async function asked(photo, options) {
  const confidence = photo.confidence ?? find("confidence").value;
  photo.confidence = confidence;
  const query = new URLSearchParams(confidence ? { ...options, confidence } : options);
  for (let attempt = 1; ; attempt += 1) {
    const form = new FormData();
    form.append("image", photo.file, "This photo"); // what errors call it; the page shows the file's name below
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const reply = await fetch(`/predict?${query}`, { method: "POST", body: form, headers });
    if (reply.ok) return (await reply.json()).images[0];
    if (reply.status === 401) {
      const text = token ? "This token is not valid." : "This server needs a token.";
      find("access").hidden = false;
      find("token").focus();
      say(text);
      if (options.explain) throw new Error(text); // the photo has its answer
      title(photo.article, "Waiting for a token …", true);
      refused.push(photo);
      return;
    }
    const seconds = Number(reply.headers.get("Retry-After"));
    if (!seconds || attempt === TRIES) {
      const text = await reply.json().then((body) => body.error, () => "The server cannot answer now.");
      if (options.explain) throw new Error(text);
      problem(photo, text);
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 1000 * seconds * (0.5 + Math.random())));
  }
}

// Shows a photo with the frames of its vehicles, and the answer for the first, the largest.
function show(photo, vehicles) {
  const { article } = photo;
  photo.vehicles = vehicles;
  const list = article.querySelector(".vehicles");
  const choices = vehicles.length > 1 ? vehicles : []; // a single one need not have been detected
  const buttons = choices.map((vehicle, number) => make("button", `${number + 1} ${label(vehicle)}`));
  buttons.forEach((button, number) => button.addEventListener("click", () => choose(photo, number)));
  list.replaceChildren(...buttons);
  list.hidden = !buttons.length;
  photo.frames = vehicles.map((vehicle, number) => {
    const frame = make("div", vehicles.length > 1 ? make("span", `${number + 1}`) : "", "frame");
    frame.addEventListener("click", () => choose(photo, number)); // the buttons are for the keyboard
    if (vehicle.crop && !isWhole(vehicle)) placed(article, frame, vehicle.crop.box);
    return frame;
  });
  const why = make("button", "Show why");
  why.addEventListener("click", () => explain(photo, why));
  article.querySelector(".why .buttons").replaceChildren(why);
  article.querySelector(".why").hidden = false;
  choose(photo, 0);
  const others = vehicles.length > 1 ? `, the largest of ${vehicles.length} vehicles` : "";
  const certainty = isWhole(vehicles[0]) ? "" : `, ${percent(said(vehicles[0]).probability)}`;
  done(photo, OUTCOMES[isWhole(vehicles[0]) ? 2 : said(vehicles[0]).level ? 0 : 1],
    `${photo.file.name}: ${heading(vehicles[0])}${certainty}${others}`);
}

// Says what became of a photo; of several that were given at once, how many are done and then what became of all.
function done(photo, outcome, text) {
  const { count, outcomes } = photo.given;
  outcomes.push(outcome);
  if (count > 1 && outcomes.length < count) text = `${outcomes.length} of ${count} photos done …`;
  else if (count > 1) {
    const counts = OUTCOMES.map((name) => [outcomes.filter((one) => one === name).length, name]);
    text = `${count} photos: ${counts.filter(([many]) => many).map((pair) => pair.join(" ")).join(", ")}`;
  }
  say(text);
}

function choose(photo, number) {
  const { article } = photo;
  const vehicle = photo.vehicles[number];
  photo.chosen = number;
  const buttons = [...article.querySelector(".vehicles").children];
  buttons.forEach((button, place) => button.setAttribute("aria-pressed", place === number));
  photo.frames.forEach((frame, place) => frame.classList.toggle("chosen", place === number));
  title(article, heading(vehicle));
  article.querySelector(".sure").textContent = sureness(vehicle);
  const shown = vehicle.classes.filter(({ probability }, place) => !place || probability >= LEAST);
  const rows = shown.map(({ name, probability }) => {
    const bar = make("i");
    bar.style.setProperty("--share", `${100 * probability}%`);
    const line = make("tr");
    line.append(make("th", name), make("td", percent(probability), "n"), make("td", bar, "bar"));
    line.firstChild.scope = "row";
    return line;
  });
  article.querySelector("tbody").replaceChildren(...rows);
  const classes = article.querySelector("details");
  classes.hidden = false;
  classes.open = !isWhole(vehicle); // of the whole photo they mean little
  article.querySelector(".seen").textContent = seen(vehicle.crop, photo.file.name);
  if (vehicle.explanation) explained(photo);
}

function said(vehicle) {
  return vehicle.answer || { level: "class", ...vehicle.classes[0] };
}

// Returns what the button of a vehicle says: the answer, or what the detector took it for.
function label(vehicle) {
  return said(vehicle).level ? said(vehicle).name : `${vehicle.crop.vehicle}, not sure`;
}

function heading(vehicle) {
  if (isWhole(vehicle)) {
    const reason = vehicle.crop.outcome.replace("whole: ", "");
    return reason === "no vehicle" ? "No vehicle found" : `Only ${reason}`;
  }
  return said(vehicle).level ? said(vehicle).name : "Not sure enough to say";
}

function sureness(vehicle) {
  const { level, name, probability } = said(vehicle);
  if (isWhole(vehicle) && !level) return "Without a vehicle, nothing is certain enough.";
  if (!level) return `The best guess of the ${coarsest} has a probability of ${percent(probability)} only.`;
  if (isWhole(vehicle)) return `If the whole photo is one after all: ${name}, ${percent(probability)}.`;
  const most = vehicle.answer && level !== "class" ? `, and no more than the ${level} is certain enough` : "";
  return `Probability ${percent(probability)}${most}.`;
}

// True where images are cropped to their vehicle and this one has none.
function isWhole(vehicle) {
  return vehicle.crop && !vehicle.crop.vehicle;
}

function seen(crop, name) {
  if (!crop) return name;
  if (!crop.vehicle) return `${name}: the whole image was classified.`;
  const which = crop.candidates > 1 ? `vehicle ${crop.number} of ${crop.candidates}, a ${crop.vehicle}` : `the ${crop.vehicle} in the frame`;
  return `${name}: ${which} (detected with ${percent(crop.score)}).`;
}

async function explain(photo, button) {
  const { article } = photo;
  const reason = article.querySelector(".reason");
  button.disabled = true;
  reason.textContent = "Looking for reasons …";
  try {
    const row = await asked(photo, { explain: true, ...(photo.vehicles[0].crop?.number && { vehicles: "all" }) });
    photo.vehicles = row.vehicles || [row];
    choose(photo, photo.chosen);
    article.querySelector(".why button").focus();
  } catch (error) {
    reason.textContent = error instanceof TypeError ? await unsent(photo.file) : error.message;
    button.disabled = false;
  }
}

// Replaces the button by one for each of the two maps, and shows the first.
function explained(photo) {
  const { article } = photo;
  const { predicted, rival, box, for_answer, against_rival } = photo.vehicles[photo.chosen].explanation;
  const maps = [
    { text: `Why ${predicted}`, places: for_answer, meaning: `speaks for ${predicted}` },
    { text: `Why not ${rival}`, places: against_rival, meaning: `speaks for ${predicted} and against ${rival}` },
  ];
  const buttons = maps.map(({ text, places, meaning }) => {
    const button = make("button", text);
    button.addEventListener("click", () => {
      const shown = button.getAttribute("aria-pressed") === "true";
      buttons.forEach((one) => one.setAttribute("aria-pressed", !shown && one === button));
      article.querySelector("canvas")?.remove();
      const text = `What ${meaning} is coloured, the more the brighter; most is ${where(places)}.`;
      article.querySelector(".reason").textContent = shown ? "" : text;
      if (!shown) placed(article, heatMap(places), box);
    });
    return button;
  });
  article.querySelector(".why .buttons").replaceChildren(...buttons);
  buttons[0].click();
}

// Lays an element over a box of the photo, in pixels; over all of it without a box.
function placed(article, element, box) {
  const image = article.querySelector("img");
  const place = () => {
    const { naturalWidth: width, naturalHeight: height } = image;
    if (!width) return;
    const { left, top, right, bottom } = box || { left: 0, top: 0, right: width, bottom: height };
    element.style.left = `${(100 * left) / width}%`;
    element.style.top = `${(100 * top) / height}%`;
    element.style.width = `${(100 * (right - left)) / width}%`;
    element.style.height = `${(100 * (bottom - top)) / height}%`;
    image.parentElement.append(element);
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
  done(photo, OUTCOMES[3], text);
}

function title(article, text, unfinished = false) {
  const heading = article.querySelector("h2");
  heading.textContent = text;
  heading.classList.toggle("waiting", unfinished);
}

function make(kind, content = "", name = "") {
  const made = document.createElement(kind);
  made.append(content);
  if (name) made.className = name;
  if (kind === "button") made.type = kind;
  return made;
}

function say(text) {
  find("status").textContent = text;
}

async function describe() {
  const model = await (await fetch("/model")).json();
  const classes = model.class_names.length.toLocaleString("en");
  const subject = model.levels.length > 1 ? "Make, model and year of the vehicle in a photo" : "The class of a photo";
  if (model.levels.length > 1) {
    find("title").textContent = "Which car is it?";
    document.title = "Which car is it? – whichcar";
  }
  find("about").prepend(`${subject}, one of ${classes} classes. `);
  coarsest = model.levels.at(-1);
  cropping = model.crops;
  find("card").hidden = !model.card;
  if (!model.confidences.length) return;
  const accuracies = [...model.confidences].sort();
  const start = accuracies.filter((share) => share <= 0.95).at(-1);
  const options = accuracies.map((share) => {
    const text = Number((100 * share).toFixed(2));
    return new Option(`${text} of 100 times`, share, false, share === start);
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
const ready = describe().catch(() => say("The server cannot be reached."));
