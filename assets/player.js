// Film player: the frames of one or several runs under one timeline.
//
// The page passes which runs to show (small JSON). Frames come by their own immutable URLs, their numbers as
// server-sent events; nothing here makes the page's script run, unless the page asked for `report` or `fork`. Where a
// film with `linked` is, stands in the address.

const KEEP = 120; // decoded frames kept per run
const ACTIVE = ["queued", "running", "paused"];
const ENDED = ["done", "stopped", "failed", "interrupted"];
const players = new WeakMap(); // survives that this module's function is called again on every change

export default function ({ parentElement, data, setStateValue, setTriggerValue }) {
  let player = players.get(parentElement);
  if (!player) {
    player = new Player(parentElement);
    players.set(parentElement, player);
  }
  player.onStep = (step) => setStateValue("step", step);
  player.onFork = (step) => data.fork && setTriggerValue("fork", step);
  player.apply(data);
  return () => {
    player.close();
    players.delete(parentElement);
  };
}

// ---- one run: its list of frames, its decoded frames, its event stream ------------------------------------------

class Reel {
  constructor(run, changed) {
    this.id = run.id;
    this.title = run.title || "";
    this.status = run.status || "";
    this.message = "";
    this.layout = null;
    this.frames = []; // {step, event, seconds, loss, seen}, ascending; and once asked for, `shares`
    this.beside = {}; // what stands beside the film: names, each with its version
    this.fetched = new Map(); // of those, what was asked for
    this.metric = null;
    this.machine = "";
    this.bitmaps = new Map(); // least recently used first
    this.changed = changed;
    this.source = null;
    this.closed = false;
  }

  async load() {
    clearTimeout(this.retry);
    let film;
    try {
      const answer = await fetch(`/api/runs/${this.id}/frames`);
      if (!answer.ok) throw new Error(String(answer.status));
      film = await answer.json();
    } catch {
      if (!this.closed) this.retry = setTimeout(() => this.load(), 3000); // the server may be restarting
      return;
    }
    if (this.closed) return;
    this.layout = film.layout;
    this.machine = (film.layout && film.layout.machine) || "";
    this.status = film.status;
    this.message = film.message;
    this.metric = film.metric;
    this.frames = film.frames.map(([step, event, seconds, loss, seen]) => ({ step, event, seconds, loss, seen }));
    this.beside = film.beside || {};
    this.changed(this);
    if (ACTIVE.includes(this.status)) this.listen(film.cursor);
    else this.hangUp();
  }

  listen(cursor) {
    this.hangUp();
    const source = new EventSource(`/api/runs/${this.id}/events?since=${cursor}`);
    this.source = source;
    const on = (kind, act) =>
      source.addEventListener(kind, (message) => {
        act(JSON.parse(message.data), Number(message.lastEventId));
        this.changed(this, kind);
      });
    on("layout", (e) => {
      this.layout = e;
      this.machine = e.machine || "";
      this.load(); // what stands beside the film was written before
    });
    on("metric", (e) => (this.metric = e));
    on("frame", (e, event) => {
      const last = this.frames.at(-1);
      if (last && last.step === e.step) this.frames.pop();
      const loss = this.metric && this.metric.step <= e.step ? this.metric.loss : null;
      this.frames.push({ step: e.step, event, seconds: e.seconds, loss, seen: e.images_seen, shares: e.shares || null });
    });
    on("status", (e) => {
      this.status = e.status;
      this.message = e.message;
      // A resumed or diverged run went back to a checkpoint: frames after it are gone.
      if (e.resumed || ENDED.includes(e.status)) this.load();
    });
    source.onerror = () => {
      if (source.readyState === EventSource.CLOSED && !this.closed && source === this.source)
        this.retry = setTimeout(() => this.load(), 3000);
    };
  }

  at(time, clock) {
    // The last frame that is not after `time` on this clock (“step”, “seconds” or “seen”), else the first.
    let low = 0;
    let high = this.frames.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.frames[middle][clock] <= time) low = middle;
      else high = middle - 1;
    }
    return this.frames[low];
  }

  async bitmap(frame) {
    const kept = this.bitmaps.get(frame.event);
    if (kept) {
      this.bitmaps.delete(frame.event); // to the young end
      this.bitmaps.set(frame.event, kept);
      return kept;
    }
    const promise = (async () => {
      const answer = await fetch(`/api/runs/${this.id}/frames/${frame.step}.webp?e=${frame.event}`);
      if (!answer.ok) throw new Error(String(answer.status));
      return createImageBitmap(await answer.blob(), { colorSpaceConversion: "none", premultiplyAlpha: "none" });
    })();
    this.bitmaps.set(frame.event, promise);
    while (this.bitmaps.size > KEEP) {
      const [oldest, old] = this.bitmaps.entries().next().value;
      this.bitmaps.delete(oldest);
      old.then((b) => b !== this.shown && b.close()).catch(() => {});
    }
    try {
      return await promise;
    } catch (error) {
      this.bitmaps.delete(frame.event);
      if (error.message === "404") this.frames = this.frames.filter((f) => f !== frame); // thinned out meanwhile
      return null;
    }
  }

  // A picture or list that stands beside the film, or null. It is fetched once for each version.
  async still(name) {
    const version = this.beside[name];
    if (!version) return null;
    const key = `${name}?v=${version}`;
    if (!this.fetched.has(key))
      this.fetched.set(
        key,
        (async () => {
          const answer = await fetch(`/api/runs/${this.id}/beside/${key}`);
          if (!answer.ok) return null;
          if (name.endsWith(".json")) return answer.json();
          return createImageBitmap(await answer.blob(), { colorSpaceConversion: "none", premultiplyAlpha: "none" });
        })().catch(() => null),
      );
    return this.fetched.get(key);
  }

  // Each image's share of the squared gradient at a frame, in thousandths, or null.
  shares(frame) {
    if (frame.shares === undefined)
      frame.shares = fetch(`/api/runs/${this.id}/frames/${frame.step}.json?e=${frame.event}`)
        .then(async (answer) => (answer.ok && (await answer.json()).shares) || null)
        .catch(() => null);
    return frame.shares;
  }

  hangUp() {
    if (this.source) this.source.close();
    this.source = null;
  }

  close() {
    this.closed = true;
    clearTimeout(this.retry);
    this.hangUp();
    for (const bitmap of this.bitmaps.values()) bitmap.then((b) => b && b.close()).catch(() => {});
    for (const still of this.fetched.values()) still.then((b) => b && b.close && b.close());
    this.bitmaps.clear();
    this.fetched.clear();
    this.shown = null;
  }
}

// ---- how a grid of classes fits into a stage --------------------------------------------------------------------

// A frame has one column per class. Few images of many classes make a thin strip, so that classes may go on below, in
// bands; the number of bands is the one that gives the largest images.
function fit(layout, width, height, ratio) {
  const { columns, rows, size } = layout;
  const longest = Math.max(...layout.classes.map((name) => name.length));
  const head = (cell) => {
    const font = Math.max(11, Math.min(16, cell / (0.6 * longest)));
    if (font * 0.6 * longest <= cell + 2 || cell >= 56) return { font, tall: Math.ceil(font * 1.5), upright: false };
    return { font: 11, tall: Math.min(84, Math.ceil(longest * 6.6) + 6), upright: true };
  };
  // Where the height is what limits the images, the columns move apart until the names above them fit.
  const apart = (cell, per) => Math.max(cell, Math.min(longest * 7.5 + 8, 1.7 * cell, width / per));
  let best = null;
  const most = Math.min(columns, 16);
  for (let bands = 1; bands <= most; bands++) {
    const per = Math.ceil(columns / bands);
    if (Math.ceil(columns / per) !== bands) continue;
    let cell = Math.min(width / per, 10 * size);
    for (let round = 0; round < 3; round++)
      cell = Math.min(cell, (height - bands * (head(apart(cell, per)).tall + 10)) / (bands * rows));
    const worth = cell * (columns % per ? 0.85 : 1) * (bands === 1 ? 1.1 : 1);
    if (!best || worth > best.worth) best = { bands, per, cell, worth };
  }
  const least = Math.min(32, width / Math.min(columns, 10));
  if (best.cell < least) {
    // Too many to fit: readable images, and the stage scrolls.
    const per = Math.min(columns, Math.max(1, Math.floor(width / least)));
    best = { bands: Math.ceil(columns / per), per, cell: Math.min(width / per, 44) };
  }
  let pixels = Math.max(2, Math.floor(best.cell * ratio)); // device pixels of a cell, its gap included
  const gap = pixels > 24 * ratio ? Math.round(2 * ratio) : pixels > 8 * ratio ? 1 : 0;
  const whole = Math.floor((pixels - gap) / size) * size;
  if (whole >= size && whole >= 0.9 * (pixels - gap)) pixels = whole + gap; // every pixel the same size
  const pitch = Math.max(pixels, Math.floor(apart(pixels / ratio, best.per) * ratio));
  return { ...best, pixels, pitch, gap, head: head(pitch / ratio) };
}

// What changed between two pictures of one size: grey where nothing did.
function difference(after, before) {
  const [width, height] = [after.width, after.height];
  const canvas = element("canvas", { width, height });
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const [a, b] = [after, before].map((picture) => {
    pen.drawImage(picture, 0, 0);
    return pen.getImageData(0, 0, width, height);
  });
  for (let i = 0; i < a.data.length; i++) a.data[i] = i % 4 === 3 ? 255 : 128 + a.data[i] - b.data[i]; // clamped to a byte
  pen.putImageData(a, 0, 0);
  return canvas;
}

// ---- the player -------------------------------------------------------------------------------------------------

const ICONS = {
  play: '<path d="M8 5v14l11-7z"/>',
  pause: '<path d="M6 5h4v14H6zM14 5h4v14h-4z"/>',
  back: '<path d="M15 6 9 12l6 6z"/>',
  on: '<path d="m9 6 6 6-6 6z"/>',
  tune: '<path d="M4 7h9v2H4zM17 7h3v2h-3zM14 5h2v6h-2zM4 15h3v2H4zM11 15h9v2h-9zM8 13h2v6H8z"/>',
  fork: '<path d="M11 20v-7L5.5 7.5V10H4V5h5v1.5H6.5L12 12l5.5-5.5H15V5h5v5h-1.5V7.5L13 13v7z"/>',
  full: '<path d="M5 5h6v2H7v4H5zM13 5h6v6h-2V7h-4zM5 13h2v4h4v2H5zM17 13h2v6h-6v-2h4z"/>',
};
const icon = (name) => `<svg viewBox="0 0 24 24" aria-hidden="true">${ICONS[name]}</svg>`;

function clock(seconds) {
  if (seconds === null || seconds === undefined) return "";
  const whole = Math.round(seconds);
  const two = (n) => String(n).padStart(2, "0");
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

const TIMELINES = { frames: "frame by frame", step: "by steps", seconds: "by distilling time", seen: "by real images seen" };
const LAYERS = {
  images: "images",
  start: "change since the start",
  last: "change since the last frame",
  mean: "difference from the class mean",
};

const short = (x) => (x === null || x === undefined ? "" : Math.abs(x) >= 1000 || (x && Math.abs(x) < 0.001) ? x.toExponential(2) : x.toPrecision(3));

class Player {
  constructor(parent) {
    this.reels = [];
    this.time = 0; // where the film is, on the clock
    this.clock = "step"; // or “seconds” of distilling, or real images “seen”
    this.even = true; // the slider goes from frame to frame, whatever lies between them on the clock
    this.speed = 1;
    this.layer = "images"; // or what changed in them since the “start”, or since the “last” frame, or from the “mean”
    this.wiping = false;
    this.following = true;
    this.playing = false;
    this.looping = false;
    this.asked = 0;
    this.calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.build(parent);
  }

  build(parent) {
    const button = (name, label, act, more = "") =>
      element("button", { type: "button", className: `tool ${more}`, title: label, ariaLabel: label, innerHTML: icon(name), onclick: act });
    this.badge = element("span", { className: "badge" });
    this.facts = element("dl", { className: "facts" });
    this.full = button("full", "Full screen", () => {
      if (document.fullscreenElement) document.exitFullscreen();
      else this.root.requestFullscreen();
    });
    this.stage = element("div", { className: "stage", tabIndex: 0, role: "group", ariaLabel: "Distilled images" });
    this.stage.ariaDescription = "Arrow keys go along the film; with Shift, from image to image.";
    this.stage.onkeydown = (e) => this.key(e);
    this.note = element("p", { className: "note" });
    this.panels = element("div", { className: "panels" });
    this.stage.append(this.note, this.panels);
    this.toggle = button("play", "Play", () => this.setPlaying(!this.playing));
    this.slider = element("input", { type: "range", min: 0, max: 1000, value: 0, ariaLabel: "Distillation step" });
    this.slider.oninput = () => this.hold(this.times()[this.placed(Number(this.slider.value))] ?? 0);
    this.slider.onkeydown = (e) => this.key(e);
    this.latest = element("button", { type: "button", className: "latest", onclick: () => this.follow() }, "Follow latest");
    this.forks = button("fork", "Fork here", () => this.onFork(this.step()), "forks");
    this.forks.append(element("span", {}, "Fork here"));
    this.transport = element(
      "div",
      { className: "transport" },
      this.toggle,
      button("back", "One frame back", () => this.move(-1), "step"),
      this.slider,
      button("on", "One frame on", () => this.move(1), "step"),
      this.latest,
      this.forks,
      (this.more = button("tune", "Speed, timeline and view", () => {
        this.options.hidden = !this.options.hidden;
        this.more.ariaExpanded = String(!this.options.hidden);
      })),
    );
    this.more.ariaExpanded = "false";
    const choice = (label, options, act) => {
      const select = element("select", { ariaLabel: label, onchange: () => act(select.value) });
      select.append(...Object.entries(options).map(([value, text]) => element("option", { value }, text)));
      return element("label", {}, label, select);
    };
    this.arrange = choice("Arrange", { beside: "side by side", wipe: "wipe" }, (value) => {
      this.wiping = value === "wipe";
      this.layOut();
    });
    this.options = element(
      "div",
      { className: "options", hidden: true },
      ...(this.choices = [
        choice("Speed", { 1: "normal", 0.25: "a quarter", 0.5: "half", 2: "double", 4: "fourfold" }, (value) => {
          this.speed = Number(value);
        }),
        choice("Timeline", TIMELINES, (value) => this.tell(value)),
        choice("Show", LAYERS, (value) => {
          this.layer = value;
          this.show();
        }),
      ]),
      this.arrange,
    );
    this.edge = element("input", { type: "range", min: 0, max: 100, value: 50, ariaLabel: "Wipe" });
    this.edge.oninput = () => this.panels.style.setProperty("--wipe", `${this.edge.value}%`);
    this.sides = [element("span"), element("span")];
    this.wipe = element("div", { className: "wipes", hidden: true }, this.sides[0], this.edge, this.sides[1]);
    this.spoken = element("p", { className: "spoken", ariaLive: "polite" });
    this.loupe = element("div", { className: "loupe", hidden: true, ariaHidden: "true" });
    this.lens = element("canvas");
    this.label = element("b");
    this.told = element("span");
    this.near = element("canvas");
    this.nearest = element("span");
    this.loupe.append(this.lens, this.label, this.told, this.near, this.nearest);
    this.root = element(
      "section",
      { className: "player", ariaLabel: "Film of the distilled images" },
      element("div", { className: "top" }, this.badge, this.facts, this.full),
      this.stage,
      (this.leads = element("p", { className: "leads", hidden: true, ariaLive: "polite" })),
      this.wipe,
      this.transport,
      this.options,
      this.spoken,
      this.loupe,
    );
    if (!this.root.requestFullscreen) this.full.hidden = true;
    parent.append(this.root);
    this.sizes = new ResizeObserver(() => this.layOut());
    this.sizes.observe(this.stage);
    this.onShown = () => {
      if (!document.hidden) this.show();
    };
    document.addEventListener("visibilitychange", this.onShown);
    // Whoever leads a room, or follows there, is told what was done here by hand, and says what is to be shown.
    for (const kind of ["click", "input", "change", "keydown"]) {
      this.root.addEventListener(kind, () => (this.before = this.manner()), true);
      this.root.addEventListener(kind, () => {
        if (this.manner() !== this.before) {
          this.obeyed = null;
          this.report(true);
        }
        this.remember();
      });
    }
    this.onTold = (event) => this.obey(event.detail);
    window.addEventListener("limbeck-show", this.onTold);
    // The page's script rewrites the address now and then, and knows only of its own keys.
    this.onRewritten = () => this.remember();
    window.navigation?.addEventListener("currententrychange", this.onRewritten);
  }

  // ---- with others in a room ----

  film() {
    const { time, clock, speed, layer, even, playing, following } = this;
    return { id: this.reels.map((reel) => reel.id).join() + this.data.badge, time, clock, speed, layer, even, playing, following };
  }

  // What somebody chose: a film that plays or follows moves on by itself.
  manner() {
    const film = this.film();
    return JSON.stringify({ ...film, time: film.playing || film.following ? 0 : film.time });
  }

  report(own) {
    const film = { ...this.film(), told: Date.now() };
    window.dispatchEvent(new CustomEvent("limbeck-film", { detail: { own, film } }));
  }

  obey(film) {
    const times = this.times();
    if (!times.length || film.id !== this.film().id) return;
    if (film.told === this.obeyed) return; // something else than the film was moved
    this.obeyed = film.told;
    Object.assign(this, { clock: film.clock, speed: film.speed, layer: film.layer, even: film.even });
    [film.speed, film.even ? "frames" : film.clock, film.layer].forEach((value, i) => {
      this.choices[i].lastChild.value = String(value);
    });
    this.setPlaying(false);
    this.following = film.following;
    this.time = film.following ? times.at(-1) : film.time;
    if (film.playing) this.setPlaying(true);
    else this.show();
    this.remember();
  }

  // ---- the address ----

  // What of the address is the film's: where it was halted, and what is not as films begin.
  linked() {
    const { playing, following, even, clock, layer, wiping } = this;
    return {
      at: playing || following ? "" : String(Math.max(...this.reels.map((reel) => this.frame(reel)?.step ?? 0))),
      timeline: even ? "" : clock,
      layer: layer === "images" ? "" : layer,
      arrange: wiping ? "wipe" : "",
    };
  }

  write() {
    clearTimeout(this.writing);
    // The address may be another page's or run's by now.
    if (!this.data.linked || !this.started || !this.reels.every((reel) => location.search.includes(reel.id))) return;
    const url = new URL(location.href);
    for (const [key, value] of Object.entries(this.linked())) {
      if (value) url.searchParams.set(key, value);
      else url.searchParams.delete(key);
    }
    if (url.href !== location.href) history.replaceState(history.state, "", url);
  }

  // Browsers do not like an address that changes at every move of a slider, nor do the panels beside the film.
  remember() {
    clearTimeout(this.writing);
    this.writing = setTimeout(() => this.rest(), 300);
  }

  // Whatever moved the film: the address, and the page that asked for `report`, are told where it rests.
  rest() {
    this.write();
    const step = this.step();
    const known = this.rested ?? this.reels[0].frames.at(-1)?.step; // pages begin at the end
    if (!this.data.report || !this.started || this.playing || step === known) return;
    this.rested = step;
    this.onStep(step);
  }

  // The film as a link says; what it says wrongly counts for nothing.
  arrive() {
    const asked = new URLSearchParams(location.search);
    const [timeline, layer, arrange, at] = ["timeline", "layer", "arrange", "at"].map((key) => asked.get(key));
    const offered = (select, value) => [...select.options].some((option) => option.value === value && !option.hidden);
    const [, timelines, layers] = this.choices.map((label) => label.lastChild);
    if (offered(timelines, timeline)) this.tell((timelines.value = timeline));
    if (offered(layers, layer)) this.layer = layers.value = layer;
    this.wiping = arrange === "wipe" && this.reels.length > 1;
    this.arrange.lastChild.value = this.wiping ? "wipe" : "beside";
    this.layOut();
    if (!at || !/^\d{1,9}$/.test(at)) return;
    const frames = this.reels.flatMap((reel) => reel.frames);
    const near = frames.reduce((best, f) => (Math.abs(f.step - at) < Math.abs(best.step - at) ? f : best));
    this.hold(near[this.clock]);
    this.rest();
  }

  apply(data) {
    this.data = data;
    this.root.style.setProperty("--height", data.height || "auto");
    this.root.classList.toggle("still", Boolean(data.still));
    this.forks.hidden = !data.fork;
    const wanted = data.runs.map((run) => run.id).join();
    if (wanted !== this.reels.map((reel) => reel.id).join()) {
      for (const reel of this.reels) reel.close();
      this.panels.replaceChildren();
      this.reels = data.runs.map((run) => new Reel(run, (reel, kind) => this.changed(reel, kind)));
      this.picked = null;
      this.following = true;
      this.started = false;
      this.setPlaying(false);
      for (const reel of this.reels) {
        reel.panel = element("figure", { className: "panel" });
        reel.caption = element("figcaption", {}, reel.title);
        reel.caption.hidden = this.reels.length < 2;
        reel.grid = element("div", { className: "grid", role: "img" });
        reel.panel.append(reel.caption, reel.grid);
        this.panels.append(reel.panel);
        reel.load();
      }
    } else {
      // A run that had ended may have been resumed, and the other way round while the stream was away.
      data.runs.forEach((run, i) => {
        if (ACTIVE.includes(run.status) && !this.reels[i].source) this.reels[i].load();
      });
    }
    this.panels.style.setProperty("--columns", Math.min(this.reels.length, this.root.clientWidth < 640 ? 1 : 2));
    this.offerLeads();
    this.describe();
  }

  // ---- time ----

  // When there is a frame to see, on the clock.
  times() {
    const all = [...new Set(this.reels.flatMap((reel) => reel.frames.map((f) => f[this.clock])))].sort((a, b) => a - b);
    if (!this.data.together) return all;
    // Branches of one run are shown from where they part.
    const parted = Math.max(...this.reels.filter((reel) => reel.frames.length).map((reel) => reel.frames[0][this.clock]));
    return all.filter((time) => time >= parted);
  }

  frame(reel = this.reels[0]) {
    return reel && reel.at(this.time, this.clock);
  }

  step() {
    return this.frame() ? this.frame().step : 0;
  }

  // Another clock, or another spacing of the slider; the film stays where it is.
  tell(timeline) {
    const frame = this.frame();
    this.even = timeline === "frames";
    this.clock = this.even ? "step" : timeline;
    if (frame) this.time = frame[this.clock];
    this.show();
  }

  // The frame that a place of the slider, from 0 to 1000, stands for; the other way round: `describe`.
  placed(at) {
    const times = this.times();
    if (this.even) return Math.round((at / 1000) * (times.length - 1));
    const time = times[0] + (at / 1000) * (times.at(-1) - times[0]);
    return times.reduce((best, t, i) => (Math.abs(t - time) < Math.abs(times[best] - time) ? i : best), 0);
  }

  live() {
    return this.reels.some((reel) => ACTIVE.includes(reel.status));
  }

  evaluating(reel) {
    return reel.message.startsWith("Evaluating");
  }

  changed(reel, kind) {
    if (kind === "metric") {
      this.describe();
      return;
    }
    if (reel.layout && reel.laid !== JSON.stringify(reel.layout)) this.layOut();
    this.offer();
    const times = this.times();
    if (this.following && times.length && !this.playing) this.time = times.at(-1);
    if (!this.started && times.length > 1 && this.reels.every((r) => r.layout)) {
      this.started = true;
      if (this.data.linked) this.arrive();
      this.remember();
      if (!this.data.autoplay && !this.data.still) this.report(false);
      if (this.data.autoplay && !this.calm && !this.live()) {
        this.looping = true;
        this.time = times[0];
        this.setPlaying(true);
      }
    }
    // Events come in bursts, the more of them the more people watch: only what the last one brought is fetched.
    this.due ??= setTimeout(() => {
      this.due = null;
      this.show();
    });
  }

  // Not every run tells how many images were seen, or has the means of its classes beside its film.
  offer() {
    const [, timelines, layers] = this.choices.map((label) => label.lastChild);
    const all = (has) => this.reels.every((reel) => has(reel));
    const one = (select, value, there) => (select.querySelector(`[value=${value}]`).hidden = !there);
    one(timelines, "seen", all((reel) => reel.frames.length && reel.frames.every((f) => Number.isFinite(f.seen))));
    one(layers, "mean", all((reel) => reel.beside["mean.webp"]));
  }

  follow() {
    this.following = true;
    this.setPlaying(false);
    this.time = this.times().at(-1) ?? 0;
    this.show();
    this.remember();
  }

  hold(time) {
    this.looping = false;
    this.setPlaying(false);
    this.time = time;
    this.following = !this.live() && time === this.times().at(-1);
    this.show();
  }

  move(by) {
    const times = this.times();
    if (!times.length) return;
    const place = Math.max(0, Math.min(times.length - 1, this.place(times) + by));
    this.hold(times[place]);
  }

  place(times) {
    let place = 0;
    while (place + 1 < times.length && times[place + 1] <= this.time) place++;
    return place;
  }

  key(event) {
    const act = {
      ArrowLeft: () => this.move(-1),
      ArrowRight: () => this.move(1),
      Home: () => this.move(-Infinity),
      End: () => (this.live() ? this.follow() : this.move(Infinity)),
      " ": () => this.setPlaying(!this.playing),
      "Shift ArrowLeft": () => this.step2d(-1, 0),
      "Shift ArrowRight": () => this.step2d(1, 0),
      "Shift ArrowUp": () => this.step2d(0, -1),
      "Shift ArrowDown": () => this.step2d(0, 1),
    }[event.shiftKey ? `Shift ${event.key}` : event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  }

  setPlaying(on) {
    clearTimeout(this.timer);
    this.playing = on && this.times().length > 1;
    this.toggle.innerHTML = icon(this.playing ? "pause" : "play");
    this.toggle.title = this.toggle.ariaLabel = this.playing ? "Pause the film" : "Play from the start";
    if (!this.playing) {
      this.looping = false;
      this.describe();
      return;
    }
    this.following = false;
    const times = this.times();
    if (this.place(times) >= times.length - 1) this.time = times[0];
    this.show();
    this.tick();
  }

  tick() {
    const times = this.times();
    const place = this.place(times);
    let wait = Math.max(50, Math.min(400, 12000 / times.length)) / this.speed;
    if (!this.even) {
      // A film of twelve seconds, in which each frame stays for as long as it did.
      const stays = ((times[place + 1] ?? times[place]) - times[place]) / (times.at(-1) - times[0] || 1);
      wait = Math.max(25, (12000 / this.speed) * stays);
    }
    if (place === 0 || place === times.length - 1) wait = Math.max(wait, 1200); // time to see where it began and ended
    this.timer = setTimeout(async () => {
      if (document.hidden) {
        this.tick();
        return;
      }
      const now = this.times();
      const next = this.place(now) + 1;
      if (next < now.length) this.time = now[next];
      else if (this.looping) this.time = now[0];
      else if (this.live()) {
        this.follow();
        return;
      } else {
        this.setPlaying(false);
        this.remember();
        return;
      }
      await this.show();
      if (this.playing) this.tick();
    }, wait);
  }

  // ---- drawing ----

  async show() {
    this.describe();
    if (document.hidden) return;
    const number = ++this.asked;
    await Promise.all(
      this.reels.map(async (reel) => {
        const frame = this.frame(reel);
        if (!frame || !reel.layout) return;
        const changes = this.layer !== "images";
        const before = this.layer === "start" ? 0 : Math.max(0, reel.frames.indexOf(frame) - 1);
        const other = () => (this.layer === "mean" ? reel.still("mean.webp") : reel.bitmap(reel.frames[before]));
        const [bitmap, base] = await Promise.all([reel.bitmap(frame), changes && other()]);
        if (this.layer === "mean" && !base) {
          this.layer = this.choices[2].lastChild.value = "images"; // there is none
          return this.show();
        }
        if (!bitmap || (changes && !base)) {
          if (number === this.asked && reel.frames.length) this.show(); // that frame is gone: the one before it
          return;
        }
        if (number < (reel.drawn || 0)) return; // a later one is on the screen already
        if (reel.closed) return;
        if (!bitmap.width || (base && !base.width)) return this.show(); // pushed out, and closed, while it was waited for
        reel.drawn = number;
        reel.shown = bitmap;
        reel.picture = base ? difference(bitmap, base) : bitmap;
        this.draw(reel);
      }),
    );
    if (this.playing) {
      const times = this.times();
      const place = this.place(times);
      for (const time of times.slice(place + 1, place + 5))
        for (const reel of this.reels) {
          const frame = reel.at(time, this.clock);
          if (frame) reel.bitmap(frame);
        }
    }
  }

  layOut() {
    const width = this.stage.clientWidth - 2;
    if (width < 20) return;
    const narrow = this.root.clientWidth < 640;
    const [one, two] = this.reels.map(({ layout: l }) => l && [l.columns, l.rows, l.size].join());
    this.arrange.hidden = this.reels.length !== 2 || one !== two;
    const wiping = this.wiping && !this.arrange.hidden;
    this.panels.classList.toggle("wipe", wiping);
    this.wipe.hidden = !wiping;
    this.reels.forEach((reel, i) => {
      reel.caption.hidden = this.reels.length < 2 || wiping;
      if (wiping) this.sides[i].textContent = reel.title;
    });
    const across = wiping ? 1 : Math.min(this.reels.length, narrow ? 1 : 2) || 1;
    this.panels.style.setProperty("--columns", across);
    const down = wiping ? 1 : Math.ceil(this.reels.length / across);
    const fixed = this.data.height && !narrow;
    const tall = fixed ? this.stage.clientHeight / down : (narrow && down > 1 ? 0.28 : 0.55) * innerHeight;
    for (const reel of this.reels) {
      const layout = reel.layout;
      if (!layout) continue;
      const ratio = devicePixelRatio || 1;
      const plan = fit(layout, width / across - (across > 1 ? 12 : 0), tall - (this.reels.length > 1 ? 34 : 4), ratio);
      const same = JSON.stringify([plan, ratio, layout]);
      reel.laid = JSON.stringify(layout);
      if (same === reel.same) continue;
      reel.same = same;
      reel.plan = plan;
      reel.ratio = ratio;
      reel.bands = [];
      reel.grid.replaceChildren();
      this.loupe.hidden = true; // nobody will hear the pointer leave what is gone
      for (let band = 0; band < plan.bands; band++) {
        const classes = layout.classes.slice(band * plan.per, (band + 1) * plan.per);
        const heads = element("div", { className: "heads", ariaHidden: "true" });
        heads.classList.toggle("upright", plan.head.upright);
        heads.style.font = `500 ${plan.head.font}px/1.3 var(--st-font, system-ui)`;
        heads.style.gridTemplateColumns = `repeat(${classes.length}, ${plan.pitch / ratio}px)`;
        if (plan.head.upright) heads.style.height = `${plan.head.tall}px`;
        for (const name of classes) heads.append(element("span", { title: name }, name));
        const canvas = element("canvas", { ariaHidden: "true" });
        canvas.width = classes.length * plan.pitch;
        canvas.height = layout.rows * plan.pixels - plan.gap;
        canvas.style.width = `${canvas.width / ratio}px`;
        canvas.style.height = `${canvas.height / ratio}px`;
        canvas.onpointermove = (e) => this.look(reel, band, e);
        canvas.onpointerleave = () => (this.loupe.hidden = true);
        canvas.onclick = (e) => {
          const cell = this.look(reel, band, e);
          if (cell) this.choose(reel, cell);
        };
        reel.bands.push(canvas);
        reel.grid.append(element("div", { className: "band" }, heads, canvas));
      }
      if (reel.picture) this.draw(reel);
    }
  }

  draw(reel) {
    const { layout, plan, picture } = reel;
    if (!plan || !picture) return;
    const side = plan.pixels - plan.gap;
    const size = picture.width / layout.columns;
    reel.bands.forEach((canvas, band) => {
      const pen = canvas.getContext("2d");
      pen.imageSmoothingEnabled = false;
      const first = band * plan.per;
      const count = Math.min(plan.per, layout.columns - first);
      const left = (plan.pitch - side) >> 1;
      if (!plan.gap && plan.pitch === plan.pixels) {
        pen.drawImage(picture, first * size, 0, count * size, picture.height, 0, 0, canvas.width, canvas.height);
        return;
      }
      for (let column = 0; column < count; column++)
        for (let row = 0; row < layout.rows; row++)
          pen.drawImage(
            picture, (first + column) * size, row * size, size, size,
            column * plan.pitch + left, row * plan.pixels, side, side,
          );
    });
    if (this.picked && this.picked.reel === reel) {
      const { column, row } = this.picked;
      const pen = reel.bands[Math.floor(column / plan.per)].getContext("2d");
      const wide = Math.max(2, Math.round(3 * reel.ratio));
      pen.lineWidth = wide;
      pen.strokeStyle = getComputedStyle(this.root).getPropertyValue("--st-primary-color") || "#b35c1e";
      const left = (column % plan.per) * plan.pitch + ((plan.pitch - side) >> 1);
      pen.strokeRect(left + wide / 2, row * plan.pixels + wide / 2, side - wide, side - wide);
    }
    reel.grid.ariaLabel = this.words(reel);
    this.relook();
    this.root.dataset.drawn = String(Number(this.root.dataset.drawn || 0) + 1); // lets a test count
  }

  // The image under the pointer, large.
  look(reel, band, event) {
    const { plan, layout } = reel;
    const box = reel.bands[band].getBoundingClientRect();
    const pitch = plan.pixels / reel.ratio;
    const column = band * plan.per + Math.floor(((event.clientX - box.left) * reel.ratio) / plan.pitch);
    const row = Math.floor((event.clientY - box.top) / pitch);
    if (column < 0 || column >= layout.columns || row < 0 || row >= layout.rows) return null;
    const cell = { column, row };
    this.looked = { reel, ...cell };
    this.loupe.hidden = false;
    this.relook();
    const home = this.root.getBoundingClientRect();
    const [wide, high] = [this.loupe.offsetWidth, this.loupe.offsetHeight];
    const x = event.clientX - home.left;
    const y = event.clientY - home.top;
    this.loupe.style.left = `${x + 24 + wide > home.width ? Math.max(0, x - wide - 24) : x + 24}px`;
    this.loupe.style.top = `${Math.max(0, Math.min(home.height - high, y - high / 2))}px`;
    return cell;
  }

  // An image that was chosen keeps a frame, and leads to what other pages ask about it.
  choose(reel, cell) {
    if (!this.data.leads || this.reels.length > 1) return;
    this.picked = { reel, ...cell };
    this.draw(reel);
    this.offerLeads();
  }

  offerLeads() {
    const { leads } = this.data;
    const { reel, column, row } = this.picked || {};
    const index = leads && reel && reel === this.reels[0] ? leads.cells[row * reel.layout.columns + column] : null;
    this.leads.hidden = index === null || index === undefined;
    if (this.leads.hidden) return;
    const name = this.called(reel, column, row);
    const links = leads.to.map(([text, href]) => element("a", { href: href.replace("INDEX", index), target: "_self" }, text));
    this.leads.replaceChildren(element("b", {}, name), ...links);
  }

  called(reel, column, row) {
    const { classes, rows } = reel.layout;
    return classes[column] + (rows > 1 ? `, image ${row + 1} of ${rows}` : "");
  }

  // From image to image with Shift and the arrow keys.
  step2d(right, down) {
    const reel = this.reels[0];
    if (!this.data.leads || this.reels.length > 1 || !reel.layout) return;
    const { columns, rows } = reel.layout;
    const { column, row } = this.picked && this.picked.reel === reel ? this.picked : { column: -right, row: -down };
    const clamp = (x, most) => Math.max(0, Math.min(most - 1, x));
    this.choose(reel, { column: clamp(column + right, columns), row: clamp(row + down, rows) });
    this.spoken.textContent = this.called(reel, this.picked.column, this.picked.row);
  }

  async relook() {
    if (this.loupe.hidden || !this.looked) return;
    const { reel, column, row } = this.looked;
    if (!reel.picture || !reel.layout) return;
    const { classes, columns } = reel.layout;
    const cut = (canvas, picture) => {
      const size = picture.width / columns;
      canvas.width = canvas.height = size;
      canvas.getContext("2d").drawImage(picture, column * size, row * size, size, size, 0, 0, size, size);
    };
    cut(this.lens, reel.picture);
    this.label.textContent = this.called(reel, column, row);
    // More is known of a moment, and most of the end: labels as they were learned, and the nearest real images.
    const frame = this.frame(reel);
    const end = !ACTIVE.includes(reel.status) && frame === reel.frames.at(-1);
    const place = row * columns + column;
    const [shares, cells, near] = await Promise.all([
      reel.shares(frame), end && reel.still("cells.json"), end && reel.still("nearest.webp"),
    ]);
    const now = this.looked;
    if (now.reel !== reel || now.column !== column || now.row !== row || this.frame(reel) !== frame) return;
    const share = shares && shares[place];
    const label = cells && cells.labels && cells.labels[place];
    this.told.textContent = [
      label && `Learned label: ${label.map(([c, value]) => `${classes[c]}: ${value.toFixed(2)}`).join(", ")}`,
      share !== null && share !== undefined && shares && `Share in lowering the loss: ${(share / 10).toFixed(1)} %`,
    ]
      .filter(Boolean)
      .join("\n");
    const kind = near && near.width && cells && cells.nearest ? cells.nearest[place] : null;
    this.near.hidden = this.nearest.hidden = kind === null;
    if (this.near.hidden) return;
    cut(this.near, near);
    this.nearest.textContent = `Nearest real image: ${classes[kind]}`;
  }

  // ---- words ----

  words(reel) {
    const frame = this.frame(reel);
    if (!frame) return "No images yet";
    const loss = frame.loss === null || frame.loss === undefined ? "" : `, loss ${short(frame.loss)}`;
    const what = this.layer === "images" ? "" : `${LAYERS[this.layer]}, `;
    return `${reel.title || "Distilled images"}: ${what}${reel.layout ? reel.layout.columns : ""} classes, step ${frame.step}${loss}`;
  }

  describe() {
    const times = this.times();
    const place = this.place(times);
    const along = this.even ? place / (times.length - 1) : (times[place] - times[0]) / (times.at(-1) - times[0]);
    this.slider.value = String(Math.round(1000 * (along || 0)));
    this.slider.disabled = times.length < 2;
    const reel = this.reels[0];
    if (!reel) return;
    const frame = this.frame();
    const live = this.live();
    const atEnd = this.following && live;
    this.latest.hidden = !live;
    this.latest.setAttribute("aria-pressed", String(this.following));

    const [kind, name] = this.data.badge
      ? ["quiet", this.data.badge]
      : !live
        ? ["quiet", { done: "Finished", stopped: "Stopped", failed: "Failed", interrupted: "Interrupted" }[reel.status] || ""]
        : reel.status === "queued"
          ? ["quiet", "Waiting"]
          : reel.status === "paused"
            ? ["quiet", "Paused"]
            : this.following
              ? ["live", this.evaluating(reel) ? "Evaluating" : "Live"]
              : ["quiet", this.playing ? "Replay" : "Looking back"];
    this.badge.className = `badge ${kind}`;
    this.badge.textContent = name;
    this.badge.hidden = !name;

    const metric = reel.metric;
    const now = atEnd && metric ? metric : frame;
    const facts = [];
    if (this.reels.length > 1)
      facts.push(
        this.clock === "seconds"
          ? ["distilling", clock(this.time)]
          : [this.clock === "seen" ? "real images seen" : "step", this.time.toLocaleString("en")],
      );
    else if (now) {
      facts.push(["step", now.step.toLocaleString("en")]);
      if (now.loss !== null && now.loss !== undefined) facts.push(["loss", short(now.loss)]);
      if (now.seconds !== null && now.seconds !== undefined) facts.push(["distilling", clock(now.seconds)]);
      if (this.clock === "seen" && frame) facts.push(["real images seen", frame.seen.toLocaleString("en")]);
    }
    if (this.reels.length < 2 && atEnd && metric && reel.status === "running" && !this.evaluating(reel)) {
      if (metric.rate) facts.push(["steps/s", short(metric.rate)]);
      if (metric.eta !== null && metric.eta !== undefined) facts.push(["left", clock(metric.eta)]);
    }
    const key = JSON.stringify(facts.map((f) => f[0]));
    if (key !== this.factKey) {
      this.factKey = key;
      this.facts.replaceChildren(
        ...facts.map(([label]) => element("div", {}, element("dt", {}, label), element("dd"))),
      );
    }
    facts.forEach(([, value], i) => (this.facts.children[i].lastChild.textContent = value));

    this.note.textContent = times.length ? "" : this.data.message || reel.message || "Loading the film.";
    this.note.hidden = times.length > 0;
    this.slider.setAttribute("aria-valuetext", frame ? `step ${frame.step}${frame.loss != null ? `, loss ${short(frame.loss)}` : ""}` : "");
    this.transport.hidden = Boolean(this.data.still) || times.length === 0;
    this.options.classList.toggle("still", this.transport.hidden);
    this.speak(frame);
  }

  // Screen readers hear where the film is, not more often than every five seconds.
  speak(frame) {
    if (!frame || this.playing) return;
    const text = `Step ${frame.step}${frame.loss != null ? `, loss ${short(frame.loss)}` : ""}`;
    const wait = 5000 - (Date.now() - (this.spokeAt || 0));
    clearTimeout(this.speaking);
    const say = () => {
      this.spokeAt = Date.now();
      if (this.spoken.textContent !== text) this.spoken.textContent = text;
    };
    if (wait <= 0) say();
    else this.speaking = setTimeout(say, wait);
  }

  close() {
    clearTimeout(this.timer);
    clearTimeout(this.due);
    clearTimeout(this.speaking);
    clearTimeout(this.writing);
    this.playing = false;
    this.sizes.disconnect();
    document.removeEventListener("visibilitychange", this.onShown);
    window.removeEventListener("limbeck-show", this.onTold);
    window.navigation?.removeEventListener("currententrychange", this.onRewritten);
    for (const reel of this.reels) reel.close();
    this.root.remove();
  }
}
