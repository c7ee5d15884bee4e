"use strict";

(function () {
  const study = window.STUDY;
  const words = study.words;
  const started = new Date().toISOString();
  const subject = subjectOf(new URLSearchParams(location.search).get("subject"));
  document.documentElement.lang = study.language;
  document.title = study.title;
  if (!subject) {
    document.body.innerHTML = paragraphs("", [words.bad_subject], "bad");
    return;
  }

  const jsPsych = initJsPsych({
    show_progress_bar: true,
    auto_update_progress_bar: false,
    message_progress_bar: escaped(words.progress),
    on_finish: finish,
  });
  jsPsych.randomization.setSeed(`${study.id} ${subject}`);
  const blocks = planStudy(study, jsPsych.randomization.shuffle);
  const planned = blocks.flat().length;
  const answers = [];
  let declined = false;

  window.addEventListener("beforeunload", warn);
  jsPsych.run([screenCheck(), consent(), instructions(), preload(), ...blocks.flatMap(timelineOf)]);

  /** Return the name of the subject: that of the address, or a new one; "" if it is none. */
  function subjectOf(asked) {
    if (asked !== null) return /^[\w.-]{1,64}$/.test(asked) ? asked : "";
    const bytes = crypto.getRandomValues(new Uint8Array(8));
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  function needed() {
    const shown = study.tasks.includes(1) ? 3 : 2;
    const widths = Object.values(study.sizes).map((size) => size[0]);
    const heights = Object.values(study.sizes).map((size) => size[1]);
    return [shown * Math.max(...widths) + (shown - 1) * 24 + 48, Math.max(...heights) + 220];
  }

  function tooSmall() {
    const [width, height] = needed();
    return innerWidth < width || innerHeight < height;
  }

  /** Wait until the window is large enough for the pictures at their own size. */
  function screenCheck() {
    const [width, height] = needed();
    let look = null;
    return {
      timeline: [{
        type: jsPsychHtmlButtonResponse,
        stimulus: () => paragraphs(words.screen_title, [filled(words.screen, {
          width, height, now_width: innerWidth, now_height: innerHeight,
        })]),
        choices: [words.go_on],
        on_load: () => {
          const button = document.querySelector(".jspsych-btn");
          look = () => {
            button.disabled = tooSmall();
            const now = document.getElementById("now");
            if (now) now.textContent = `${innerWidth} × ${innerHeight}`;
          };
          addEventListener("resize", look);
          look();
        },
        on_finish: () => removeEventListener("resize", look),
      }],
      conditional_function: tooSmall,
    };
  }

  function consent() {
    return {
      type: jsPsychHtmlButtonResponse,
      stimulus: () => paragraphs(study.title, study.consent),
      choices: [words.agree, words.decline],
      on_finish: (data) => {
        if (data.response !== 1) return;
        declined = true;
        jsPsych.abortExperiment(paragraphs("", [words.declined]));
      },
    };
  }

  function instructions() {
    const pages = [paragraphs(words.how_title, words.how.map((one) => filled(one, {
      seconds: study.seconds, pairs: planned,
    })))];
    return {
      type: jsPsychInstructions,
      pages,
      show_clickable_nav: true,
      allow_backward: false,
      button_label_next: words.start,
      on_load: () => document.querySelector("#jspsych-instructions-next").focus(),
    };
  }

  function preload() {
    const images = blocks.flat().flatMap((t) => [t.left, t.right, t.input]).filter(Boolean);
    return {
      type: jsPsychPreload,
      images: [...new Set(images)],
      message: `<p>${escaped(words.loading)}</p>`,
      error_message: `<p class="bad">${escaped(words.not_loaded)}</p>`,
      show_detailed_errors: true,
    };
  }

  function timelineOf(trials) {
    const task = trials[0].task;
    const steps = [message(words[`task_${task}_title`], words[`task_${task}`], words.start)];
    trials.forEach((trial, k) => {
      if (k && k % study.break_every === 0) {
        steps.push(message(words.break_title, [filled(words.break, {
          done: k, all: trials.length,
        })], words.go_on));
      }
      steps.push(pairOf(trial));
    });
    return steps;
  }

  function message(title, lines, button) {
    return {
      type: jsPsychHtmlButtonResponse,
      stimulus: paragraphs(title, lines),
      choices: [button],
      on_load: () => document.querySelector(".jspsych-btn").focus(),
    };
  }

  function pairOf(trial) {
    return {
      type: SfumatoPair,
      left: trial.left,
      right: trial.right,
      input: trial.input,
      size: trial.size,
      seconds: study.seconds,
      words: {
        question: words.question, left: words.left, right: words.right, input: words.input,
      },
      on_finish: (data) => {
        answers.push({
          number: answers.length + 1,
          task: trial.task,
          kind: trial.kind,
          picture: trial.picture,
          method: trial.method,
          generated: trial.side,
          choice: data.choice,
          shown_ms: data.shown_ms,
          response_ms: data.response_ms,
          interrupted: data.interrupted,
        });
        jsPsych.progressBar.progress = answers.length / planned;
      },
    };
  }

  function record() {
    return {
      format: study.format,
      study: study.id,
      title: study.title,
      subject,
      language: study.language,
      started,
      finished: new Date().toISOString(),
      planned,
      screen: { width: innerWidth, height: innerHeight, ratio: devicePixelRatio },
      user_agent: navigator.userAgent,
      trials: answers,
    };
  }

  /** Save the answers as a file, send them if the study says where to, and say what happened. */
  async function finish() {
    window.removeEventListener("beforeunload", warn);
    if (declined) return;
    const text = `${JSON.stringify(record(), null, 1)}\n`;
    const name = `study-${study.id}-${subject}.json`;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = name;
    link.id = "saved";
    link.textContent = name;
    const display = jsPsych.getDisplayElement();
    display.innerHTML = paragraphs(words.thanks_title, [words.saved, ""]);
    display.querySelector("p:last-child").append(link);
    link.click();
    if (!study.post) return;
    const state = document.createElement("p");
    state.id = "sent";
    state.textContent = words.sending;
    display.querySelector(".words").append(state);
    const sent = await send(text);
    state.textContent = sent ? words.sent : words.not_sent;
    state.className = sent ? "" : "bad";
  }

  /** Post the answers; as plain text, which a browser sends to another server without asking it. */
  async function send(text) {
    try {
      const answer = await fetch(study.post, {
        method: "POST",
        headers: { "Content-Type": "text/plain;charset=utf-8" },
        body: text,
      });
      return answer.ok;
    } catch (error) {
      console.error(error);
      return false;
    }
  }

  function warn(event) {
    if (answers.length) event.preventDefault();
  }

  function paragraphs(title, lines, style = "") {
    const head = title ? `<h1>${escaped(title)}</h1>` : "";
    const body = lines.map((line) => `<p class="${style}">${escaped(line)}</p>`).join("");
    return `<div class="words">${head}${body}</div>`;
  }

  function filled(text, values) {
    return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? values[name] : whole));
  }

  function escaped(text) {
    const letters = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
    return String(text).replace(/[&<>"]/g, (letter) => letters[letter]);
  }
})();
