"use strict";

/**
 * A plugin of jsPsych: two pictures side by side for a fixed time, then a choice.
 *
 * Nothing can be chosen while the pictures are shown, and nothing is shown while one chooses. The
 * time on the screen is counted in frames of the display, and told as it was.
 */
const SfumatoPair = (function (jspsych) {
  const info = {
    name: "sfumato-pair",
    version: "1.0.0",
    parameters: {
      /** Addresses of the pictures; `input` may be null, else it is shown between them. */
      left: { type: jspsych.ParameterType.STRING, default: undefined },
      right: { type: jspsych.ParameterType.STRING, default: undefined },
      input: { type: jspsych.ParameterType.STRING, default: null },
      /** Width and height on the page, in CSS pixels. */
      size: { type: jspsych.ParameterType.INT, array: true, default: undefined },
      /** How long the pictures are shown, and a cross before them, in seconds. */
      seconds: { type: jspsych.ParameterType.FLOAT, default: 3 },
      pause: { type: jspsych.ParameterType.FLOAT, default: 0.5 },
      /** question, left, right, input: what is written. */
      words: { type: jspsych.ParameterType.OBJECT, default: {} },
    },
    data: {
      choice: { type: jspsych.ParameterType.STRING },
      /** Milliseconds that the pictures were on the screen. */
      shown_ms: { type: jspsych.ParameterType.FLOAT },
      /** Milliseconds from the end of that to the choice. */
      response_ms: { type: jspsych.ParameterType.FLOAT },
      /** Whether the page was out of sight while the pictures were shown. */
      interrupted: { type: jspsych.ParameterType.BOOL },
    },
  };
  const KEYS = { ArrowLeft: "left", ArrowRight: "right" };

  class SfumatoPair {
    constructor(jsPsych) {
      this.jsPsych = jsPsych;
    }

    async trial(display, trial) {
      const page = layOut(display, trial);
      await Promise.all(page.pictures.map((picture) => picture.decode()));
      await wait(1000 * trial.pause);
      const { shown_ms, interrupted } = await show(page, 1000 * trial.seconds);
      const asked = performance.now();
      const choice = await chosen(page);
      const response_ms = round(performance.now() - asked);
      display.replaceChildren();
      this.jsPsych.finishTrial({ choice, shown_ms, response_ms, interrupted });
    }
  }
  SfumatoPair.info = info;

  function layOut(display, trial) {
    const [width, height] = trial.size;
    const columns = trial.input ? ["left", "input", "right"] : ["left", "right"];
    const pair = document.createElement("div");
    pair.className = "pair";
    pair.style.gridTemplateColumns = columns.map(() => `${width}px`).join(" ");
    const question = document.createElement("p");
    question.className = "question";
    question.textContent = trial.words.question;
    pair.append(question);
    const pictures = columns.map((column) => {
      const place = document.createElement("div");
      place.className = "place";
      place.style.width = `${width}px`;
      place.style.height = `${height}px`;
      const picture = new Image();
      picture.alt = "";
      picture.className = column === "input" ? "hidden grainy" : "hidden";
      picture.src = trial[column];
      const cross = document.createElement("div");
      cross.className = "cross";
      cross.textContent = "+";
      place.append(picture, cross);
      pair.append(place);
      return picture;
    });
    const buttons = {};
    for (const column of columns) {
      if (column === "input") {
        const caption = document.createElement("div");
        caption.className = "caption";
        caption.textContent = trial.words.input;
        pair.append(caption);
        continue;
      }
      const button = document.createElement("button");
      button.type = "button";
      button.className = "hidden";
      button.textContent = trial.words[column];
      buttons[column] = button;
      pair.append(button);
    }
    display.replaceChildren(pair);
    return { pair, pictures, buttons };
  }

  /** Show the pictures from one frame to the frame that is nearest to the end of the time. */
  async function show(page, duration) {
    let interrupted = document.hidden;
    const note = () => { interrupted = interrupted || document.hidden; };
    document.addEventListener("visibilitychange", note);
    const crosses = page.pair.querySelectorAll(".cross");
    for (const cross of crosses) cross.classList.add("hidden");
    for (const picture of page.pictures) picture.classList.remove("hidden");
    const began = await frame();
    let now = began;
    let step = 0;
    while (now + step / 2 - began < duration) {
      const next = await frame();
      step = Math.min(next - now, 50);
      now = next;
    }
    for (const picture of page.pictures) picture.classList.add("hidden");
    document.removeEventListener("visibilitychange", note);
    return { shown_ms: round(now - began), interrupted };
  }

  function chosen(page) {
    return new Promise((resolve) => {
      const done = (choice) => {
        document.removeEventListener("keydown", onKey);
        resolve(choice);
      };
      const onKey = (event) => {
        if (event.repeat || !(event.key in KEYS)) return;
        event.preventDefault();
        done(KEYS[event.key]);
      };
      document.addEventListener("keydown", onKey);
      for (const [side, button] of Object.entries(page.buttons)) {
        button.classList.remove("hidden");
        button.addEventListener("click", () => done(side), { once: true });
      }
    });
  }

  const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
  const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  const round = (ms) => Math.round(10 * ms) / 10;

  return SfumatoPair;
})(jsPsychModule);
