"use strict";
// One viewer: two NiiVue canvases, linked in millimetres. `window.prod9Viewer` says what is shown.
(() => {
  const root = document.getElementById("viewer");
  const find = (name, from = root) => from.querySelector(`.p9-${name}`);
  const body = find("body"), message = find("message"), place = find("place");
  const layout = find("layout"), smooth = find("smooth");
  const state = {
    ready: false, error: null, mm: null,
    current: [null, null], slice: [null, null], value: [null, null], trouble: [null, null],
    layout: layout.value, smooth: smooth.checked,
  };
  window.prod9Viewer ??= state;

  function fail(sentence) {
    state.error = sentence;
    message.textContent = sentence;
    message.hidden = false;
    body.hidden = true;
  }

  if (!document.createElement("canvas").getContext("webgl2")) {
    fail("This browser offers no WebGL 2, which the viewer draws with; switch on its hardware " +
      "acceleration, or open the page in another browser.");
    return;
  }
  if (typeof niivue === "undefined") {
    fail("The viewer's library is not in this page.");
    return;
  }

  const { Niivue, NVImage, SLICE_TYPE } = niivue;
  const layouts = {
    planes: SLICE_TYPE.MULTIPLANAR, axial: SLICE_TYPE.AXIAL, coronal: SLICE_TYPE.CORONAL,
    sagittal: SLICE_TYPE.SAGITTAL, render: SLICE_TYPE.RENDER,
  };
  // In percent of a plane, of which there are two in a row: about as thin either way.
  const width = () => (layout.value === "planes" ? 0.7 : 0.2);
  // x to the right, y to the front, z up: what a key adds to the voxel, in the volume's RAS axes.
  const steps = {
    ArrowLeft: [-1, 0, 0], ArrowRight: [1, 0, 0], ArrowUp: [0, 0, 1], ArrowDown: [0, 0, -1],
    PageUp: [0, 1, 0], PageDown: [0, -1, 0],
  };

  function tag(kind, text) {
    const element = document.createElement(kind);
    element.textContent = text;
    return element;
  }

  class Pane {
    constructor(element, side) {
      this.side = side;
      this.select = find("volume", element);
      this.group = find("group", element);
      this.stage = find("stage", element);
      this.canvas = this.stage.querySelector("canvas");
      this.readout = find("readout", element);
      this.asked = 0;
      this.nv = new Niivue({
        logLevel: "error", dragAndDropEnabled: false, backColor: [0, 0, 0, 1],
        crosshairColor: [0.36, 0.66, 0.93, 0.75], crosshairWidth: width(), crosshairWidthUnit: "percent",
        fontColor: [0.72, 0.76, 0.8, 1], fontMinPx: 12, loadingText: "",
        isCornerOrientationText: true,
        multiplanarLayout: 2, multiplanarPadPixels: 4, isNearestInterpolation: !smooth.checked,
        sliceType: layouts[layout.value],
      });
      this.nv.onLocationChange = () => this.tell();
      this.select.addEventListener("change", () => this.load());
      // Ours alone: NiiVue's own keys change drag modes and open dialogs.
      this.stage.addEventListener("keydown", (event) => this.key(event), true);
      this.stage.addEventListener("keyup", (event) => event.stopPropagation(), true);
      // In a long page the wheel belongs to the page until a volume has been clicked.
      this.stage.addEventListener("wheel", (event) => {
        if (root.dataset.wheel !== "always" && document.activeElement !== this.canvas) {
          event.stopPropagation();
        }
      }, { capture: true, passive: true });
    }

    get volume() { return this.nv.volumes[0]; }

    async bytes(address) {
      if (!address.startsWith("#")) {
        const answer = await fetch(address);
        if (!answer.ok) throw new Error(`the server says ${answer.status}`);
        return answer.arrayBuffer();
      }
      const text = atob(JSON.parse(document.getElementById(address.slice(1)).textContent));
      return Uint8Array.from(text, (letter) => letter.charCodeAt(0)).buffer;
    }

    async load() {
      const asked = ++this.asked;
      const option = this.select.selectedOptions[0];
      const name = { group: option.parentElement.label, name: option.textContent };
      this.group.textContent = this.group.title = name.group;
      this.readout.textContent = "loading …";
      let image = null, sentence = "";
      try {
        // The name is fixed: NiiVue chooses the format, and where to look for more, by its end.
        const buffer = await this.bytes(option.value);
        image = await NVImage.loadFromUrl({ url: buffer, name: "volume.nii.gz" });
      } catch (error) {
        sentence = `cannot be shown: ${error.message ?? error}`;
      }
      if (asked !== this.asked) return; // another one has been chosen meanwhile
      this.nv.volumes = [];
      if (image === null) {
        this.nv.back = null;
        this.nv.updateGLVolume();
        this.nv.drawScene();
        state.slice[this.side] = state.value[this.side] = null;
        this.readout.textContent = sentence;
      } else {
        this.nv.addVolume(image);
        const other = panes[1 - this.side];
        if (other?.volume) this.follow(other);
        else this.nv.moveCrosshairInVox(0, 0, 0); // onto the centre of a voxel
        this.tell();
      }
      state.trouble[this.side] = sentence || null;
      state.current[this.side] = name;
    }

    follow(other) {
      const mm = other.nv.frac2mm(other.nv.scene.crosshairPos);
      this.nv.scene.crosshairPos = this.nv.mm2frac(mm);
      this.nv.drawScene();
    }

    key(event) {
      event.stopPropagation();
      const step = steps[event.key];
      if (!step || event.ctrlKey || event.altKey || event.metaKey || !this.volume) return;
      event.preventDefault();
      // The other one follows: NiiVue tells it, because this canvas has the focus.
      if (layout.value === "render") {
        const { renderAzimuth, renderElevation } = this.nv.scene;
        this.nv.setRenderAzimuthElevation(renderAzimuth - 5 * step[0], renderElevation + 5 * step[2]);
      } else {
        this.nv.moveCrosshairInVox(...step);
      }
    }

    // Write down where the crosshair is, which slices that are, and what lies there.
    tell() {
      if (!this.volume) return;
      const sides = this.volume.dimsRAS.slice(1, 4);
      const voxel = [...this.nv.frac2vox(this.nv.scene.crosshairPos)];
      const mm = [...this.nv.frac2mm(this.nv.scene.crosshairPos)].slice(0, 3);
      const inside = voxel.every((v, axis) => v >= 0 && v < sides[axis]);
      const stored = this.volume.mm2vox(mm);
      const value = inside ? this.volume.getValue(...stored, this.volume.frame4D) : null;
      state.slice[this.side] = voxel;
      state.value[this.side] = value;
      state.mm = mm;
      place.textContent = `${mm.map((v) => (v + 0).toFixed(1)).join(", ")} mm`;
      const parts = ["x", "y", "z"].map((axis, i) => `${axis} ${voxel[i]} of 0–${sides[i] - 1}`);
      const shown = inside ? `intensity ${Number(value.toPrecision(4))}` : "outside";
      this.readout.replaceChildren(...parts.map((part) => tag("span", part)), tag("b", shown));
    }
  }

  const panes = [];
  async function start() {
    root.querySelectorAll(".p9-pane").forEach((element, side) => panes.push(new Pane(element, side)));
    for (const pane of panes) await pane.nv.attachToCanvas(pane.canvas, true); // smooth lines
    for (const pane of panes) await pane.load();
    panes.forEach((pane, i) => pane.nv.broadcastTo(panes[1 - i].nv, { "2d": true, "3d": true }));
    layout.addEventListener("change", () => {
      state.layout = layout.value;
      for (const { nv } of panes) {
        nv.opts.crosshairWidth = width();
        nv.setSliceType(layouts[layout.value]);
      }
    });
    smooth.addEventListener("change", () => {
      state.smooth = smooth.checked;
      panes.forEach((pane) => pane.nv.setInterpolation(!smooth.checked));
    });
    state.ready = true;
  }
  start().catch((error) => fail(`The viewer did not start: ${error.message ?? error}`));
})();
