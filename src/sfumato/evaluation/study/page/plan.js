"use strict";

/**
 * Decide what a subject sees: a list of trials for each task.
 *
 * `study` is what list.js holds; `shuffle` returns an array in random order, and is the only source
 * of chance, so that a seeded one gives the same plan again. No picture is shown in two pairs.
 * Methods and sides are dealt out evenly.
 */
function planStudy(study, shuffle) {
  const order = shuffle(study.pictures).slice(0, study.tasks.length * study.images);
  return study.tasks.map((task, k) => {
    const own = order.slice(k * study.images, (k + 1) * study.images);
    const afterwards = order.slice((k + 1) * study.images).map((picture) => picture.name);
    const methods = dealt(study.methods, own.length, shuffle);
    const sides = dealt(["left", "right"], own.length, shuffle);
    const pairs = own.map((picture, n) => trialOf(study, task, {
      kind: "pair",
      picture: picture.name,
      method: methods[n],
      camera: picture.reference,
      generated: picture.results[methods[n]],
      input: picture.input,
      side: sides[n],
    }));
    return withChecks(study, task, pairs, afterwards, shuffle);
  });
}

/** Return `n` of `values`, each as often as the others or once more, in random order. */
function dealt(values, n, shuffle) {
  const hands = shuffle(values);
  return shuffle(Array.from({ length: n }, (_, k) => hands[k % hands.length]));
}

/**
 * Put the attention checks between the pairs, one at a random place of each equal part.
 *
 * A check tells which picture is the photograph, so where there is a choice it is of one that is
 * not in a pair still to come; `afterwards` names those of later tasks.
 */
function withChecks(study, task, pairs, afterwards, shuffle) {
  const sides = dealt(["left", "right"], study.n_checks, shuffle);
  let unused = shuffle(study.checks);
  const part = pairs.length / study.n_checks;
  const trials = [...pairs];
  for (let k = 0; k < study.n_checks; k++) {
    const places = [];
    for (let at = Math.floor(k * part) + 1; at <= Math.floor((k + 1) * part); at++) places.push(at);
    const at = shuffle(places.length ? places : [pairs.length])[0];
    const later = new Set([...pairs.slice(at).map((pair) => pair.picture), ...afterwards]);
    const check = unused.find((one) => !later.has(one.name)) || unused[0];
    unused = unused.filter((one) => one !== check);
    if (!unused.length) unused = shuffle(study.checks);
    trials.splice(at + k, 0, trialOf(study, task, {
      kind: "check",
      picture: check.name,
      method: null,
      camera: check.reference,
      generated: check.spoilt,
      input: check.input,
      side: sides[k],
    }));
  }
  return trials;
}

function trialOf(study, task, { side, camera, generated, input, ...facts }) {
  return {
    task,
    ...facts,
    side,
    left: side === "left" ? generated : camera,
    right: side === "left" ? camera : generated,
    input: task === 1 ? input : null,
    size: study.sizes[facts.picture],
  };
}
