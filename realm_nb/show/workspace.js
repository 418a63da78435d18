// The workspace: a sentence with its blank, the answer, and how it came about, in one component.
// It draws the JSON of the endpoint /show, and asks for nothing else than its own server's answers.
// All text from outside becomes text nodes: nothing of it is ever read as HTML.
(() => {
const DEFAULTS = {k: 4, temperature: 1, null: true, exclude: true, marginal: 'sequence', moment: ''};
const BLANK = /\[MASK\](?:\s*\[MASK\])*/i;
const HUES = 8;

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (name in node && typeof value !== 'string') node[name] = value;
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter(c => c != null && c !== false));
  return node;
}

const fill = (node, ...children) => node.replaceChildren(...children.flat().filter(c => c != null && c !== false));

function draw(tag, attributes = {}, ...children) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const ICONS = {
  eye: 'M1 8c2-4 4.5-5 7-5s5 1 7 5c-2 4-4.5 5-7 5s-5-1-7-5zM8 5.5a2.5 2.5 0 1 0 0 5a2.5 2.5 0 1 0 0-5zM2 14L14 2',
  pencil: 'M2 14l1-4 8-8 3 3-8 8zM9.500 3.500l3 3',
};
const icon = name => draw('svg', {class: 'icon', viewBox: '0 0 16 16', width: 14, height: 14, 'aria-hidden': 'true'}, draw('path', {d: ICONS[name]}));

function percent(p) {
  if (p >= 0.0995) return `${Math.round(100 * p)} %`;
  if (p >= 0.00095) return `${(100 * p).toFixed(1)} %`;
  return p > 0 ? 'under 0.1 %' : '0 %';
}

const figure = p => (p >= 0.0005 || p === 0 ? p.toFixed(3) : p.toExponential(0));
const cut = (text, n) => (text.length > n ? text.slice(0, Math.max(1, n - 1)) + '…' : text);
const plural = (n, word) => `${n} ${word}${n === 1 ? '' : 's'}`;

// Asks the app's own endpoints. One question is under way at a time; of those that wait, the last.
class Live {
  async call(name, ...data) {
    const base = new URL(`gradio_api/call/${name}`, location.href.split(/[?#]/)[0]);
    const posted = await fetch(base, {
      method: 'POST',
      headers: {'Content-Type': 'application/json'},
      body: JSON.stringify({data}),
    });
    if (posted.status === 413) throw new Error('that is too much text at once; make it shorter');
    if (posted.status === 401) throw new Error('you are no longer logged in; reload the page');
    if (!posted.ok) throw new Error('the app is busy or has been stopped; try again in a moment');
    const {event_id: id} = await posted.json();
    const text = await (await fetch(`${base}/${id}`)).text();
    const events = [...text.matchAll(/^event: (\w+)\ndata: (.*)$/gm)];
    const [, kind, payload] = events.at(-1) || [];
    const value = payload ? JSON.parse(payload) : null;
    if (kind === 'complete') return value[0];
    throw new Error((value && value.error) || 'the app could not answer; try again');
  }
  show(s) {
    return this.call('show', s.text, s.hidden, s.k, s.temperature, s.null, s.exclude, s.marginal,
      s.moment, s.added, s.removed, s.y || '');
  }
}

// Answers that were noted beforehand: a page without a server.
class Recorded {
  constructor(recorded) { this.recorded = recorded; }
  static key(s) {
    return JSON.stringify([s.text, s.hidden, s.moment, s.added.map(d => d.text), s.y || '']);
  }
  async call(name, text) {
    const found = (this.recorded[name] || {})[text === undefined ? '' : text];
    if (found) return found;
    throw new Error('this page is a recording and has no answer to that; the app itself has');
  }
  async show(s) {
    const asked = {...s, y: s.y || ''};
    const found = this.recorded.show[Recorded.key(asked)]
      || (!s.y ? null : this.recorded.show[Recorded.key({...asked, y: ''})]);
    if (found && !s.removed.length) return found;
    throw new Error('this page is a recording: choose one of the sentences or facts that it offers');
  }
}

class Workspace extends HTMLElement {
  connectedCallback() {
    if (this.setup) return;
    this.setup = JSON.parse(this.dataset.setup);
    this.source = this.setup.recorded ? new Recorded(this.setup.recorded) : new Live();
    this.hues = new Map();
    this.past = [];
    this.depth = 'words';
    this.state = this.fromAddress();
    this.build();
    this.ask();
    this.loadFacts();
    let width = 0;
    new ResizeObserver(() => {
      if (Math.abs(this.clientWidth - width) > 8) {
        width = this.clientWidth;
        if (this.reply) this.drawRibbons();
      }
    }).observe(this);
  }

  // ---- the state, which the address holds -------------------------------------------------------

  fromAddress() {
    const values = new URLSearchParams(location.search);
    const [text, hidden] = this.setup.first[0];
    const s = {text, hidden, y: '', added: [], removed: [], ...DEFAULTS};
    const asked = values.get('q');
    if (asked !== null && asked.trim() && asked.length <= 5000) {
      s.text = asked;
      s.hidden = (values.get('a') || '').slice(0, 200);
    }
    const k = Number(values.get('k')), heat = Number(values.get('temperature'));
    if (Number.isInteger(k) && k >= 1 && k <= 20) s.k = k;
    if (heat >= 0.05 && heat <= 20) s.temperature = heat;
    for (const name of ['null', 'exclude']) if (values.get(name) === '0') s[name] = false;
    if (values.get('marginal') === 'token') s.marginal = 'token';
    const known = this.setup.moments.map(m => m.name);
    if (known.includes(values.get('moment'))) s.moment = values.get('moment');
    try {
      const own = JSON.parse(decodeURIComponent(location.hash.slice(1)) || '{}');
      const good = d => d && typeof d.title === 'string' && typeof d.text === 'string';
      s.added = [own.added || []].flat().filter(good).slice(0, 20);
      if (own.of === this.setup.own) s.removed = [own.removed || []].flat().filter(Number.isInteger);
    } catch { /* a fragment that is not ours */ }
    return s;
  }

  address() {
    const s = this.state, values = new URLSearchParams({q: s.text});
    if (s.hidden) values.set('a', s.hidden);
    for (const [name, usual] of Object.entries(DEFAULTS)) {
      if (s[name] !== usual) values.set(name, typeof usual === 'boolean' ? Number(s[name]) : s[name]);
    }
    const own = {added: s.added, removed: s.removed, of: this.setup.own};
    const changed = s.added.length || s.removed.length;
    return `?${values}${changed ? '#' + encodeURIComponent(JSON.stringify(own)) : ''}`;
  }

  change(more) {
    if ('added' in more || 'removed' in more) {
      this.past.push({...this.state});
      this.past.splice(0, this.past.length - 50);
    }
    Object.assign(this.state, {y: ''}, more);
    return this.ask();
  }

  undo() {
    const before = this.past.pop();
    if (before) Object.assign(this.state, before);
    return this.ask();
  }

  // ---- asking -----------------------------------------------------------------------------------

  // The newest question is answered, in whatever order they came; at most one is under way.
  async ask() {
    this.drawSentence();
    this.drawSettings();
    if (location.protocol !== 'file:') history.replaceState(null, '', this.address());
    this.link.href = this.address();
    if (!BLANK.test(this.state.text)) {
      this.tell('Now click the word in the sentence that it shall fill in.', 'note');
      return;
    }
    this.wanted = true;
    if (this.busy) return;
    this.busy = true;
    this.setAttribute('aria-busy', 'true');
    while (this.wanted) {
      this.wanted = false;
      const s = structuredClone(this.state);
      try {
        const reply = await this.source.show(s);
        let before = null;
        if (s.added.length || s.removed.length) {
          const y = reply.headline ? reply.headline.y : '';
          before = await this.source.show({...s, added: [], removed: [], y});
        }
        if (!this.wanted) this.showReply(s, reply, before);
      } catch (error) {
        if (!this.wanted) this.tell(error.message, 'error');
      }
    }
    this.busy = false;
    this.removeAttribute('aria-busy');
  }

  tell(text, kind) {
    this.reply = null;
    this.answer.replaceChildren(el('p', {class: kind, role: kind === 'error' ? 'alert' : 'status'}, text));
    for (const part of [this.ribbons, this.sum, this.cards, this.sums, this.whyTable]) part.replaceChildren();
  }

  showReply(s, reply, before) {
    this.asked = s;
    this.reply = reply;
    this.before = before;
    this.result = reply.result;
    this.documents = reply.result.documents.map(d => ({...d})).sort((a, b) => (a.block < 0) - (b.block < 0));
    const titles = this.documents.map(d => d.title);
    this.documents.forEach((d, i) => {
      d.number = d.block < 0 ? '∅' : String(i + 1);
      d.hue = this.hueOf(d, reply);
      const twin = titles.filter(t => t === d.title).length > 1;
      const words = d.text.split(/\s+/).slice(0, 3).join(' ');
      d.label = d.block < 0 ? 'nothing: by heart' : twin ? `${d.title}: ${words}…` : d.title;
    });
    for (const part of ['Sentence', 'Answer', 'Ribbons', 'Sum', 'Cards', 'Sums', 'Why']) this[`draw${part}`]();
    this.download.href = 'data:application/json;charset=utf-8,' + encodeURIComponent(JSON.stringify(reply.result, null, 1));
  }

  // A passage keeps its colour for as long as the page is open, at every moment and in every picture.
  hueOf(d, reply) {
    if (d.block < 0) return 'null';
    const key = d.block >= reply.own ? `own ${d.text}` : d.block;
    if (!this.hues.has(key)) this.hues.set(key, `c${(this.hues.size % HUES) + 1}`);
    return this.hues.get(key);
  }

  // ---- the frame --------------------------------------------------------------------------------

  build() {
    const part = (name, tag = 'div', more = {}) => (this[name] = el(tag, {class: name, ...more}));
    part('sentence', 'p', {dir: 'auto', role: 'toolbar', 'aria-label': 'The sentence: choose a word to hide it'});
    part('answer', 'div', {'aria-live': 'polite', id: 'answer'});
    part('ribbons');
    part('sum', 'p');
    part('cards');
    part('sums', 'div', {'aria-live': 'polite'});
    part('whyTable');
    part('factChips', 'p', {class: 'chips'});
    this.own = el('input', {id: 'own', autocomplete: 'off', placeholder: 'Marie Curie was born in ___.'});
    this.link = el('a', {class: 'permalink', href: '?'}, 'Link to this');
    this.download = el('a', {class: 'download', download: 'realm.json', href: '#'}, 'Take the figures (JSON)');
    const first = this.setup.first.map(([text, hidden]) => el('button', {
      type: 'button', class: 'chip', title: text.replace(BLANK, '____'),
      onclick: () => this.change({text, hidden}),
    }, cut(text.replace(BLANK, '____'), 44)));
    const form = el('form', {class: 'own', onsubmit: e => { e.preventDefault(); this.askOwn(); }},
      el('label', {for: 'own'}, 'Or write your own, with ___ for the blank:'),
      el('span', {class: 'row'}, this.own, el('button', {class: 'go'}, 'Ask')));
    this.append(
      el('div', {class: 'top'},
        el('section', {class: 'asking', 'aria-labelledby': 'h-ask'},
          el('h2', {id: 'h-ask'}, 'A sentence with a blank'),
          this.sentence,
          el('p', {class: 'hint', id: 'words-hint'}, 'Click any word to hide it instead; arrow keys move from word to word.'),
          this.answer),
        this.buildTeach(),
        el('section', {class: 'trying', 'aria-labelledby': 'h-try'},
          el('h2', {id: 'h-try'}, 'Try another'), el('p', {class: 'chips'}, first), this.setup.recorded ? null : form)),
      el('section', {class: 'how', 'aria-labelledby': 'h-how'},
        el('h2', {id: 'h-how'}, 'How it got there'), this.buildDepth(), this.ribbons, this.sum),
      el('section', {'aria-labelledby': 'h-read'},
        el('h2', {id: 'h-read'}, 'What it read'),
        el('p', {class: 'hint'}, 'Leave a passage out, or rewrite it, and the answer follows: nothing is trained for that.'),
        this.cards,
        el('p', {class: 'takeaway'}, this.link, this.download)),
      this.buildDrawers());
    for (const name of ['pointerover', 'focusin']) this.addEventListener(name, e => this.light(e));
    this.addEventListener('pointerleave', () => this.light({target: this}));
  }

  // What belongs to one passage is lit wherever it stands: ribbon, term of the sum, card, table.
  light(event) {
    const block = event.target.closest ? event.target.closest('[data-block]')?.dataset.block : undefined;
    if (block === this.lit) return;
    this.lit = block;
    this.classList.toggle('lighting', block !== undefined);
    for (const e of this.querySelectorAll('[data-block]')) e.classList.toggle('lit', e.dataset.block === block);
  }

  buildDepth() {
    const names = {words: 'in words', percent: 'in percent', formula: 'as the formula'};
    return el('fieldset', {class: 'depth'}, el('legend', {}, 'Tell me'),
      Object.entries(names).map(([value, name]) => el('label', {},
        el('input', {type: 'radio', name: 'depth', value, checked: value === this.depth,
          onchange: () => { this.depth = value; if (this.reply) { this.drawRibbons(); this.drawSum(); this.drawCards(); } }}),
        name)));
  }

  // ---- the sentence -----------------------------------------------------------------------------

  // The sentence as pieces: {text, start, end, kind}, of the whole sentence with its blank filled.
  pieces() {
    const s = this.state, match = s.text.match(BLANK);
    const fits = this.reply && this.asked.text === s.text && this.asked.hidden === s.hidden;
    const filling = s.hidden || (fits && this.reply.headline ? this.reply.headline.text : '');
    this.full = match ? s.text.replace(match[0], () => filling || '…') : s.text;
    const taken = match ? [[match.index, match.index + (filling || '…').length, 'blank']] : [];
    const spans = fits && filling === this.reply.words.filling ? this.reply.words.spans : [];
    const words = [...this.full.matchAll(/\[MASK\]|[\p{L}\p{N}]+(?:['’.-][\p{L}\p{N}]+)*/giu)];
    const more = [...spans.map(([a, b]) => [a, b, 'name']), ...words.map(w => [w.index, w.index + w[0].length, 'word'])];
    for (const [a, b, kind] of more) if (taken.every(([c, d]) => b <= c || d <= a)) taken.push([a, b, kind]);
    return taken.sort((a, b) => a[0] - b[0]);
  }

  drawSentence() {
    const held = this.sentence.contains(document.activeElement);
    const children = [];
    let at = 0;
    for (const [start, end, kind] of this.pieces()) {
      children.push(this.full.slice(at, start));
      at = end;
      const words = this.full.slice(start, end);
      if (kind === 'blank') {
        const said = this.reply && this.reply.headline ? this.reply.headline.shown : '…';
        children.push(el('b', {class: 'blank', 'aria-label': `the blank, filled with ${said}`}, said));
      } else {
        children.push(el('button', {type: 'button', class: kind, tabindex: '-1', 'aria-label': `hide ${words}`,
          onclick: () => this.hide(start, end)}, words));
      }
    }
    children.push(this.full.slice(at));
    this.sentence.replaceChildren(...children);
    const buttons = [...this.sentence.querySelectorAll('button')];
    if (buttons.length) buttons[0].tabIndex = 0;
    this.sentence.onkeydown = e => {
      const i = buttons.indexOf(document.activeElement);
      const to = {ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: buttons.length - 1}[e.key];
      if (i < 0 || to === undefined || !buttons[to]) return;
      e.preventDefault();
      buttons.forEach((b, n) => { b.tabIndex = n === to ? 0 : -1; });
      buttons[to].focus();
    };
    if (held && buttons.length) buttons[0].focus();
  }

  hide(start, end) {
    const words = this.full.slice(start, end);
    if (/\[MASK\]/i.test(words)) return;
    const rest = part => part.replace(BLANK, '…');
    this.change({text: rest(this.full.slice(0, start)) + '[MASK]' + rest(this.full.slice(end)), hidden: words});
  }

  // A sentence that is typed brings no hidden word along: what was hidden in the last one is gone.
  askOwn() {
    const typed = this.own.value.trim();
    const text = typed ? typed.replace(/_{2,}/g, '[MASK]') : this.state.text;
    if (text === this.state.text) return this.ask();
    return this.change({text, hidden: ''});
  }

  // ---- the answer -------------------------------------------------------------------------------

  drawAnswer() {
    const {headline: h, result: r} = this.reply;
    if (!h) {
      this.answer.replaceChildren(el('p', {class: 'note'}, 'Found, not read: this mode has no trained Encoder, so no blank is filled.'));
      return;
    }
    const right = r.given && this.asked.hidden && h.right;
    const inUse = this.asked.added.length + this.asked.removed.length;
    fill(this.answer,
      el('p', {class: 'big'}, el('b', {class: 'headline'}, h.shown), ' ', el('span', {class: 'sure'}, `${percent(h.p)} sure`)),
      this.asked.hidden && !inUse
        ? el('p', {class: 'verdict'}, right ? '✓ That is the hidden word.' : `✗ Hidden was: ${this.asked.hidden}.`) : null,
      el('p', {class: 'heart'}, 'Without looking anything up: ', el('b', {}, h.heart || 'no idea'), '.'),
      el('p', {class: 'chips others'}, el('span', {}, 'It also thought of '),
        this.reply.answers.filter(a => a.text !== h.y && a.usable).slice(0, 4).map(a => el('button', {
          disabled: Boolean(this.setup.recorded),
          type: 'button', class: 'chip', 'aria-pressed': String(this.asked.y === a.text),
          onclick: () => this.change({y: a.text}),
        }, `${a.text} ${percent(a.p)}`))),
      this.asked.y ? el('p', {class: 'hint'}, `The figures below are about “${this.result.hidden}”. `,
        el('button', {type: 'button', class: 'chip', onclick: () => this.change({y: ''})}, 'back to its own answer')) : null);
  }

  // ---- the ribbons ------------------------------------------------------------------------------

  drawRibbons() {
    if (!this.reply) return;
    const reads = Boolean(this.reply.headline), W = Math.max(300, this.ribbons.clientWidth || 900);
    const small = W < 620, T = small ? 130 : 190, gap = 10, least = small ? 34 : 38;
    const rows = this.documents.map(d => ({d, t: T * d.p_z, u: reads ? T * d.p_z * d.p_y_z : 0}));
    let y = 6;
    for (const row of rows) {
      row.h = Math.max(least, row.t);
      row.y = y + row.h / 2;
      y += row.h + gap;
    }
    const H = Math.max(y, T + 40), all = rows.reduce((sum, row) => sum + row.u, 0);
    const x0 = small ? 14 : 92, m0 = W * (small ? 0.2 : 0.33), m1 = W * (small ? 0.72 : 0.66), x1 = W - (small ? 22 : 150);
    const ribbon = (ax, ay, bx, by, t, d) => {
      const c = (ax + bx) / 2, h = Math.max(t, 0.6) / 2;
      return draw('path', {class: `ribbon ${d.hue}`, 'data-block': d.block,
        d: `M${ax},${ay - h}C${c},${ay - h} ${c},${by - h} ${bx},${by - h}L${bx},${by + h}C${c},${by + h} ${c},${ay + h} ${ax},${ay + h}Z`});
    };
    const svg = draw('svg', {viewBox: `0 0 ${W} ${H}`, width: W, height: H, role: 'img', 'aria-label': this.spoken()});
    let left = (H - T) / 2, right = (H - all) / 2;
    const names = [];
    for (const row of rows) {
      const {d} = row, room = Math.floor((m1 - m0 - 28) / 7.4);
      svg.append(ribbon(x0 + 8, left + row.t / 2, m0, row.y, row.t, d));
      svg.append(draw('rect', {class: `end ${d.hue}`, 'data-block': d.block, x: m0, y: row.y - Math.max(1.5, row.t / 2), width: 6, height: Math.max(3, row.t)}));
      if (reads) {
        svg.append(draw('rect', {class: `end ${d.hue}`, 'data-block': d.block, x: m1 - 6, y: row.y - Math.max(0.75, row.u / 2), width: 6, height: Math.max(1.5, row.u)}));
        svg.append(ribbon(m1, row.y, x1, right + row.u / 2, row.u, d));
      }
      const name = draw('g', {class: 'name', 'data-block': d.block});
      name.append(draw('text', {x: m0 + 14, y: row.y - 3, class: 'title'}, `${d.number} ${cut(d.label, room - 2)}`));
      name.append(draw('text', {x: m0 + 14, y: row.y + 13, class: 'what'}, cut(this.told(d), room)));
      names.push(name);
      left += row.t;
      right += row.u;
    }
    svg.append(draw('rect', {class: 'node', x: x0, y: (H - T) / 2, width: 8, height: T}));
    if (!small) {
      svg.append(draw('text', {class: 'side', x: x0 - 10, y: H / 2 - 4, 'text-anchor': 'end'}, 'sentence'));
      svg.append(draw('text', {class: 'what', x: x0 - 10, y: H / 2 + 13, 'text-anchor': 'end'}, this.depth === 'formula' ? 'x' : 'searches'));
    }
    if (reads) {
      svg.append(draw('rect', {class: 'node', x: x1, y: (H - all) / 2, width: 8, height: Math.max(all, 2)}));
      svg.append(draw('rect', {class: 'lost', x: x1, y: (H - T) / 2, width: 8, height: T}));
      if (!small) {
        svg.append(draw('text', {class: 'side', x: x1 + 16, y: H / 2 - 4}, cut(this.result.hidden, 16)));
        svg.append(draw('text', {class: 'what', x: x1 + 16, y: H / 2 + 13}, this.depth === 'formula' ? `p(y∣x) = ${figure(this.total())}` : `${percent(this.total())} in all`));
      }
    }
    svg.append(...names);
    this.ribbons.replaceChildren(svg);
  }

  total() { return this.documents.reduce((sum, d) => sum + d.p_z * d.p_y_z, 0); }

  told(d) {
    if (d.p_y_z === undefined) return this.depth === 'formula' ? `p(z∣x) = ${figure(d.p_z)}` : `read: ${percent(d.p_z)}`;
    if (this.depth === 'formula') return `p(z∣x) = ${figure(d.p_z)}, p(y∣z,x) = ${figure(d.p_y_z)}`;
    if (this.depth === 'percent') return `found ${percent(d.p_z)}, sure ${percent(d.p_y_z)}`;
    return `says ${d.says}${d.p_z > 0.5 ? ', trusted most' : d.p_z < 0.05 ? ', hardly trusted' : ''}`;
  }

  spoken() {
    const parts = this.documents.map(d => `${d.number} ${d.label}: found ${percent(d.p_z)}` +
      (d.p_y_z === undefined ? '' : `, sure of ${this.result.hidden} ${percent(d.p_y_z)}`));
    return `From the sentence through ${plural(parts.length, 'candidate')} to the answer. ${parts.join('. ')}.`;
  }

  drawSum() {
    if (!this.reply.headline) { this.sum.replaceChildren(); return; }
    const r = this.result, whole = this.total();
    const best = [...this.documents].sort((a, b) => b.share - a.share)[0];
    if (r.settings.marginal === 'token' && r.pieces.length > 1) { this.drawPieces(); return; }
    if (this.depth === 'words') {
      this.sum.replaceChildren(`It found ${plural(this.documents.filter(d => d.block >= 0).length, 'passage')}, and trusts each as much as its ribbon is thick. It reads each one, and passes on as much as it is then sure of “${r.hidden}”. Most of that, ${percent(best.share)}, comes through `,
        el('b', {'data-block': String(best.block), class: `term ${best.hue}`}, `${best.number} ${best.label}`),
        `; added up, it is ${percent(whole)} sure.`);
      return;
    }
    const show = this.depth === 'percent' ? percent : figure;
    const terms = this.documents.map((d, i) => [i ? ' + ' : '', el('span', {'data-block': String(d.block), class: `term ${d.hue}`}, `${show(d.p_z)} · ${show(d.p_y_z)}`)]);
    this.sum.replaceChildren(...[this.depth === 'formula' ? 'p(y∣x) = Σ p(z∣x) · p(y∣z,x) = ' : 'how far each is trusted × how sure it then is: ',
      ...terms.flat(), ' = ', el('b', {class: 'p-y-x'}, show(whole))].filter(t => t !== ''));
  }

  // The token form: each word piece is a sum of its own, and the sums are multiplied.
  drawPieces() {
    const r = this.result;
    const lanes = r.pieces.map((piece, i) => {
      const parts = this.documents.map(d => ({d, p: d.p_z * d.pieces[i]}));
      return el('span', {class: 'lane'}, el('span', {}, piece), this.stack(parts, 1), el('b', {}, percent(parts.reduce((s, q) => s + q.p, 0))));
    });
    this.sum.replaceChildren('The token form: each word piece is added up by itself, then the sums are multiplied.',
      ...lanes, el('span', {class: 'lane'}, el('span', {}, 'product'), el('span'), el('b', {class: 'p-y-x'}, percent(r.p_y_x))));
  }

  stack(parts, scale) {
    return el('span', {class: 'stack', 'aria-hidden': 'true'}, parts.map(({d, p}) =>
      el('i', {class: d.hue, 'data-block': String(d.block), style: `width:${(100 * p * scale).toFixed(2)}%`})));
  }

  // ---- the passages -----------------------------------------------------------------------------

  drawCards() {
    const gone = this.asked.removed.map(block => el('button', {type: 'button', class: 'chip',
      onclick: () => this.change({removed: this.state.removed.filter(b => b !== block)})}, `put back no. ${block}`));
    this.cards.replaceChildren(...this.documents.map(d => this.card(d)),
      gone.length ? el('p', {class: 'chips gone'}, 'Left out: ', gone) : '');
  }

  card(d) {
    const own = d.block >= this.reply.own, body = el('p', {class: 'body', dir: 'auto'});
    body.append(...(d.block < 0 ? ['No passage: what the model knows by heart.'] : this.marked(d.text)));
    const act = (sign, label, work) => el('button', {type: 'button', class: 'act', 'aria-label': `${label}: ${d.label}`, onclick: work}, icon(sign), label);
    const tools = d.block < 0 || this.setup.recorded ? null : el('p', {class: 'tools'},
      act('eye', own ? 'forget' : 'leave out', () => this.leaveOut(d)), act('pencil', 'rewrite', () => this.rewrite(d, body)));
    const figures = d.p_y_z === undefined ? this.told(d)
      : {words: `It says “${d.says}”.`,
        percent: `Found ${percent(d.p_z)}; then ${percent(d.p_y_z)} sure of “${this.result.hidden}”; ${percent(d.share)} of the answer comes from here.`,
        formula: `p(z∣x) ${figure(d.p_z)} · p(y∣z,x) ${figure(d.p_y_z)} = ${figure(d.p_z * d.p_y_z)}; share ${figure(d.share)}; r(z) ${d.r.toFixed(3)}; RU ${d.ru.toFixed(2)} nats`}[this.depth];
    return el('article', {class: `card ${d.hue}`, 'data-block': String(d.block)},
      el('h3', {}, el('span', {class: 'badge'}, d.number), d.block < 0 ? 'No passage' : d.title, own ? el('span', {class: 'tag'}, 'yours') : null),
      body, el('p', {class: 'figures'}, figures), tools);
  }

  // The text with the answer marked wherever it stands as whole words.
  marked(text) {
    const words = (this.result.hidden || this.asked.hidden || '').match(/[\p{L}\p{N}]+/gu);
    if (!words) return [text];
    const inner = words.map(w => w.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('[^\\p{L}\\p{N}]+');
    return text.split(new RegExp(`(?<![\\p{L}\\p{N}])(${inner})(?![\\p{L}\\p{N}])`, 'giu'))
      .map((part, i) => (i % 2 ? el('mark', {}, part) : part));
  }

  // The world without a passage; of a text of the visitor's own, all of it.
  without(d) {
    const own = d.block >= this.reply.own;
    const i = own ? this.state.added.findIndex(a => a.title.trim() === d.title && a.text.includes(d.text.slice(0, 40))) : -1;
    return {added: this.state.added.filter((_, n) => n !== i), removed: own ? this.state.removed : [...this.state.removed, d.block]};
  }

  leaveOut(d) { return this.change(this.without(d)); }

  rewrite(d, body) {
    const text = el('textarea', {rows: 6, 'aria-label': `the text of ${d.label}`});
    text.value = d.text;
    const save = () => {
      const world = this.without(d);
      this.change({...world, added: [...world.added, {title: d.title, text: text.value}]});
    };
    body.replaceChildren(text, el('span', {class: 'row'},
      el('button', {type: 'button', class: 'go', onclick: save}, 'Save'),
      el('button', {type: 'button', class: 'chip', onclick: () => this.drawCards()}, 'Cancel')));
    text.focus();
  }

  // ---- teach it ---------------------------------------------------------------------------------

  buildTeach() {
    this.fact = el('textarea', {id: 'fact', rows: 2, placeholder: 'The king of the Moon is called Archibald.'});
    this.about = el('input', {id: 'about', autocomplete: 'off', placeholder: 'The king of the Moon is called ___.'});
    const back = el('button', {type: 'button', class: 'chip undo', onclick: () => this.undo()}, '↶ Undo');
    const all = el('button', {type: 'button', class: 'chip forget', onclick: () => this.change({added: [], removed: []})}, 'Forget it all');
    const form = el('form', {onsubmit: e => { e.preventDefault(); this.teach(this.fact.value, this.about.value); }},
      el('label', {for: 'fact'}, 'Write a fact, true or not'), this.fact,
      el('label', {for: 'about'}, 'Ask about it, with ___ for the blank'), this.about,
      el('p', {class: 'row'}, el('button', {class: 'go'}, 'Teach and ask'), back, all));
    return el('section', {class: 'teach', id: 'teach', 'aria-labelledby': 'h-teach'},
      el('h2', {id: 'h-teach'}, 'Teach it something new'),
      el('p', {class: 'hint'}, 'It only has to read it once: nothing is trained.'),
      this.factChips, this.setup.recorded ? el('p', {class: 'row'}, back, all) : form, this.sums);
  }

  async loadFacts() {
    for (let tries = 0; tries < 30; tries += 1) {
      const {facts, done} = await this.source.call('facts').catch(() => ({facts: [], done: true}));
      this.factChips.replaceChildren(...facts.slice(0, 6).map(f => el('button', {type: 'button', class: 'chip fact', title: f.text,
        onclick: () => { this.fact.value = f.text; this.about.value = f.ask.replace('[MASK]', '___'); this.teach(f.text, f.ask, f.title); }}, f.chip)));
      if (done) return;
      await new Promise(resolve => setTimeout(resolve, 2000));
    }
  }

  teach(text, ask, title = '') {
    const about = ask.trim().replace(/_{2,}/g, '[MASK]');
    const more = about ? {text: about, hidden: ''} : {};
    if (!text.trim()) return about ? this.change(more) : null;
    const known = this.state.added.some(d => d.text.trim() === text.trim());
    const name = title || text.trim().split(/\s+/).slice(0, 4).join(' ');
    return this.change(known ? more : {...more, added: [...this.state.added, {title: name, text: text.trim()}]});
  }

  // Both sums, before and after, on one scale and in the same colours.
  drawSums() {
    if (!this.before || !this.before.headline) { this.sums.replaceChildren(); return; }
    const lane = (name, reply) => {
      const documents = [...reply.result.documents].sort((a, b) => (a.block < 0) - (b.block < 0));
      const parts = documents.map(d => ({d: {...d, hue: this.hueOf(d, reply)}, p: d.p_z * d.p_y_z}));
      const p = parts.reduce((sum, q) => sum + q.p, 0);
      return el('p', {class: 'lane', 'data-lane': name}, el('span', {}, `${name}: `, el('b', {}, reply.headline.shown)), this.stack(parts, 1), el('b', {}, percent(p)));
    };
    const was = this.before.headline, now = this.reply.headline, turned = was.y !== now.y;
    this.sums.replaceChildren(
      el('p', {class: 'turned'}, turned ? ['The answer turned over: ', el('s', {}, was.shown), ' → ', el('b', {}, now.shown)] : ['The answer is still ', el('b', {}, now.shown)],
        '. ', el('span', {class: 'untrained'}, 'Trained steps: 0.')),
      el('p', {class: 'hint'}, `How sure it is of “${this.result.hidden}”, put together from the passages:`),
      lane('before', this.before), lane('after', this.reply));
  }

  // ---- the drawers ------------------------------------------------------------------------------

  buildDrawers() {
    const drawer = (id, title, hint, body, open) => el('details', {id, ontoggle: e => { if (e.target.open && open) open(); }},
      el('summary', {}, el('h2', {}, title), ' ', el('span', {class: 'hint'}, hint)), body);
    const box = name => (this[name] = el('div', {class: 'drawn', 'aria-live': 'polite'}));
    const drawers = el('div', {class: 'drawers'});
    if (this.setup.reads) {
      this.slider = el('input', {type: 'range', min: '0', value: '0', id: 'moment-at', oninput: () => this.goTo(this.slider.value)});
      drawers.append(
        drawer('watch', 'Watch it learn', 'the same sentence at every moment of its training', el('div', {},
          el('p', {class: 'row'}, el('button', {type: 'button', class: 'go', onclick: () => this.play()}, '▶ Play'),
            el('label', {for: 'moment-at'}, 'moment'), this.slider), box('ranks'), box('curves')), () => this.openWatch()),
        drawer('why', 'Why?', 'every figure of every passage', el('div', {}, this.whyTable,
          el('button', {type: 'button', class: 'chip', onclick: () => navigator.clipboard?.writeText(this.python())}, 'Copy as Python'))));
    }
    if (this.setup.recorded) return drawers;
    drawers.append(
      drawer('library', 'Library', 'all that it can look up, on a map', el('div', {}, box('map')), () => this.drawn('map', this.map)),
      this.setup.reads ? drawer('many', 'Many sentences', 'how often is it right?', this.buildMany()) : '',
      drawer('question', 'Ask a question', 'an answer read by a reader, where there is one', this.buildQuestion()),
      drawer('settings', 'Settings', 'how much it reads, and how', this.buildSettings()));
    return drawers;
  }

  // HTML that the server has drawn and escaped.
  async drawn(part, box, text = this.state.text) {
    const s = this.state;
    try {
      const html = await this.source.call('drawn', part, text, s.hidden, [s.k, s.temperature, s.null, s.exclude, s.marginal, s.moment]);
      if (box.seen !== html) box.innerHTML = html;
      box.seen = html;
    } catch (error) {
      box.replaceChildren(el('p', {class: 'error', role: 'alert'}, error.message));
    }
  }

  async openWatch() {
    clearInterval(this.watching);
    const curves = () => {
      if (this.querySelector('#watch').open) this.drawn('curves', this.curves);
      else clearInterval(this.watching);
    };
    if (!this.setup.recorded) { curves(); this.watching = setInterval(curves, 2000); }
    await this.loadRanks();
  }

  async loadRanks() {
    const s = this.state, hidden = s.hidden || (this.reply && this.reply.headline ? this.reply.headline.y : '');
    try {
      this.compared = await this.source.call('compare', s.text, hidden, s.k);
      this.slider.max = String(this.compared.moments.length - 1);
      const at = this.compared.moments.findIndex(m => m.name === s.moment);
      this.slider.value = String(at < 0 ? this.compared.moments.length - 1 : at);
      this.drawRanks();
    } catch (error) {
      this.ranks.replaceChildren(el('p', {class: 'error', role: 'alert'}, error.message));
    }
  }

  goTo(i) {
    const moments = this.compared ? this.compared.moments : [];
    if (!moments[i]) return;
    const last = this.setup.moments.at(-1).name, name = moments[i].name;
    this.slider.value = String(i);
    const done = this.change({moment: name === last ? '' : name});
    this.drawRanks();
    return done;
  }

  async play() {
    if (!this.compared || this.compared.sentence !== this.state.text) await this.loadRanks();
    for (let i = 0; this.compared && i < this.compared.moments.length; i += 1) {
      await this.goTo(i);
      while (this.busy) await new Promise(resolve => setTimeout(resolve, 50));
      await new Promise(resolve => setTimeout(resolve, 900));
    }
  }

  drawRanks() {
    const c = this.compared, W = Math.max(300, this.ranks.clientWidth || 760), n = c.moments.length;
    const at = Number(this.slider.value), right = W - Math.min(230, W * 0.36);
    const x = i => 46 + (n > 1 ? i / (n - 1) : 1) * (right - 60);
    const worst = Math.max(10, ...c.documents.flatMap(d => d.ranks)), H = Math.max(230, 26 * c.documents.length + 60);
    const y = rank => 44 + (H - 62) * Math.log(Math.max(rank, 1)) / Math.log(worst);
    const said = c.documents.map(d => `${d.title}: ${d.ranks.join(' to ')}`).join('. ');
    const svg = draw('svg', {class: 'ranks', viewBox: `0 0 ${W} ${H}`, width: W, height: H, role: 'img', 'aria-label': `Ranks of passages at each moment of training. ${said}.`});
    svg.append(draw('rect', {class: 'column', x: x(at) - 20, y: 26, width: 40, height: H - 30}));
    for (const rank of [1, 10, 100, 1000, 10000].filter(r => r <= worst)) {
      svg.append(draw('text', {class: 'what', x: 28, y: y(rank) + 4, 'text-anchor': 'end'}, String(rank)));
      svg.append(draw('line', {class: 'grid', x1: 34, x2: right, y1: y(rank), y2: y(rank)}));
    }
    c.moments.forEach((m, i) => svg.append(draw('text', {class: 'what', x: x(i), y: 18, 'text-anchor': 'middle'}, W > 700 || i % 2 === 0 ? cut(m.label.replace(', step ', ' '), 14) : '')));
    let lowest = 0;
    for (const d of [...c.documents].sort((a, b) => a.ranks.at(-1) - b.ranks.at(-1))) {
      const g = draw('g', {class: this.hueOf(d, this.reply || {own: Infinity}), 'data-block': d.block});
      g.append(draw('polyline', {points: d.ranks.map((r, i) => `${x(i)},${y(r)}`).join(' '), 'stroke-width': d.hit ? 4 : 2}));
      d.ranks.forEach((r, i) => g.append(draw('circle', {cx: x(i), cy: y(r), r: 4})));
      lowest = Math.max(lowest + 15, y(d.ranks.at(-1)));
      g.append(draw('text', {x: right + 8, y: lowest + 4}, cut(`${d.ranks.at(-1)}. ${d.title}${d.hit ? ' ✓' : ''}`, Math.floor((W - right) / 7.2))));
      svg.append(g);
    }
    const rows = c.moments.map((m, i) => el('tr', {class: i === at ? 'now' : ''}, el('th', {scope: 'row'}, m.label), el('td', {}, m.answer), el('td', {}, percent(m.p)), el('td', {}, percent(m.p_y_x))));
    this.ranks.replaceChildren(
      el('p', {class: 'hint'}, 'Where each passage stood in the whole library: higher is found sooner. ✓ and a thick line: it holds the word.',
        c.waiting.length ? ` Still being prepared: ${c.waiting.join(', ')}.` : ''), svg,
      el('table', {class: 'moments'}, el('thead', {}, el('tr', {}, ...['moment', 'its first piece of answer', 'how sure', c.hidden ? `sure of “${c.hidden}”` : 'the same'].map(t => el('th', {scope: 'col'}, t)))), el('tbody', {}, rows)));
  }

  drawWhy() {
    if (!this.setup.reads || !this.reply.headline) return;
    const columns = {
      'f + const': d => Math.log(d.p_z), 'p(z∣x)': d => d.p_z, 'p(y∣z,x)': d => d.p_y_z, 'product': d => d.p_z * d.p_y_z,
      'share': d => d.share, 'r(z)': d => d.r, 'RU': d => d.ru,
    };
    delete columns['f + const'];
    const sort = this.sortBy || 'product';
    const rows = [...this.documents].sort((a, b) => columns[sort](b) - columns[sort](a)).map(d => el('tr', {'data-block': String(d.block)},
      el('th', {scope: 'row'}, el('span', {class: `badge ${d.hue}`}, d.number), d.label),
      Object.entries(columns).map(([name, of]) => el('td', {}, name === 'RU' || name === 'r(z)' ? of(d).toFixed(3) : figure(of(d)))),
      el('td', {}, d.pieces.map(p => Math.log(p).toFixed(2)).join(' · '))));
    const head = Object.keys(columns).map(name => el('th', {scope: 'col', 'aria-sort': name === sort ? 'descending' : 'none'},
      el('button', {type: 'button', onclick: () => { this.sortBy = name; this.drawWhy(); }}, name, name === sort ? ' ▾' : '')));
    this.whyTable.replaceChildren(el('div', {class: 'scroll'}, el('table', {class: 'moments'},
      el('thead', {}, el('tr', {}, el('th', {scope: 'col'}, 'passage'), head, el('th', {scope: 'col'}, `log p of ${this.result.pieces.join(' · ')}`))), el('tbody', {}, rows))),
    el('dl', {class: 'meaning'}, ...[
      ['p(z∣x)', 'how far search trusts the passage, among those found'],
      ['p(y∣z,x)', `how sure the Encoder is of “${this.result.hidden}” once it has read it`],
      ['share', 'the part of the whole sum that comes through it: the posterior'],
      ['r(z)', 'what a step of training would do: above 0 the passage is found sooner from then on, below 0 later'],
      ['RU', 'retrieval utility: nats that reading it gains over reading nothing'],
    ].flatMap(([term, what]) => [el('dt', {}, term), el('dd', {}, what)])));
  }

  python() {
    const s = this.state;
    return `from realm_nb import Explorer, fill\nx = Explorer(${JSON.stringify(this.setup.run)})\nfill(x, ${JSON.stringify(s.text)}, ${JSON.stringify(s.hidden || this.result.hidden)})\n`;
  }

  buildMany() {
    const lines = el('textarea', {rows: 6, 'aria-label': 'sentences, one a line, the word to hide in [brackets]'});
    lines.value = this.setup.first.map(([text, hidden]) => text.replace(BLANK, () => `[${hidden}]`)).join('\n');
    const out = el('div', {class: 'drawn', 'aria-live': 'polite'});
    const run = async () => {
      const tally = {right: 0, heart: 0, all: 0}, body = el('tbody');
      const total = el('p', {});
      out.replaceChildren(total, el('div', {class: 'scroll'}, el('table', {class: 'moments'}, el('thead', {}, el('tr', {}, ...['sentence', 'its answer', 'hidden', 'by heart'].map(t => el('th', {scope: 'col'}, t)))), body)));
      for (const line of lines.value.split('\n').filter(l => l.trim()).slice(0, 50)) {
        const hidden = line.match(/\[(?!MASK\])([^\]]+)\]/), text = hidden ? line.replace(hidden[0], '[MASK]') : line.replace(/_{2,}/, '[MASK]');
        const word = hidden ? hidden[1] : '';
        let cells;
        try {
          const {headline: h} = await this.source.show({...this.state, text, hidden: word, y: ''});
          tally.all += word ? 1 : 0;
          tally.right += word && h.right ? 1 : 0;
          tally.heart += word && h.heart_right ? 1 : 0;
          cells = [`${h.shown} (${percent(h.p)})${word ? (h.right ? ' ✓' : ' ✗') : ''}`, word, (h.heart || '–') + (word && h.heart_right ? ' ✓' : '')];
        } catch (error) {
          cells = [error.message, word, ''];
        }
        body.append(el('tr', {}, el('th', {scope: 'row'}, text.replace('[MASK]', '____')), cells.map(c => el('td', {}, c))));
        total.textContent = `Right: ${tally.right} of ${tally.all}. By heart alone: ${tally.heart} of ${tally.all}.`;
      }
    };
    return el('div', {}, el('p', {class: 'hint'}, 'One sentence a line, the word to hide in [brackets]; at most 50.'), lines, el('p', {class: 'row'}, el('button', {type: 'button', class: 'go', onclick: run}, 'Ask them all')), out);
  }

  buildQuestion() {
    const text = el('input', {id: 'ask-text', autocomplete: 'off'}), out = el('div', {class: 'drawn', id: 'ask-out', 'aria-live': 'polite'});
    return el('form', {onsubmit: e => { e.preventDefault(); this.drawn('asked', out, text.value); }},
      el('label', {for: 'ask-text'}, 'A question'), el('span', {class: 'row'}, text, el('button', {class: 'go', id: 'ask-go'}, 'Ask it')), out);
  }

  buildSettings() {
    const change = (name, read) => e => this.change({[name]: read(e.target)});
    const flag = (name, label) => el('label', {}, el('input', {type: 'checkbox', 'data-setting': name, onchange: change(name, t => t.checked)}), label);
    const count = (name, label, more) => el('label', {}, label, el('input', {type: 'number', 'data-setting': name, ...more, onchange: change(name, t => Number(t.value))}));
    const choice = (name, label, options) => el('label', {}, label, el('select', {'data-setting': name, onchange: change(name, t => t.value)}, options.map(([value, text]) => el('option', {value}, text))));
    return el('form', {class: 'knobs', onsubmit: e => e.preventDefault()},
      count('k', 'passages k', {min: '1', max: '20', step: '1'}),
      count('temperature', 'temperature of p(z∣x); 1 is the model’s own', {min: '0.05', max: '20', step: 'any'}),
      flag('null', '∅, reading nothing, takes part'),
      flag('exclude', 'leave out the sentence’s own passage, else it just reads the sentence itself'),
      choice('marginal', 'several word pieces', [['sequence', 'sequence form: one passage vouches for all'], ['token', 'token form: each piece by itself']]),
      choice('moment', 'moment', [['', 'newest'], ...this.setup.moments.map(m => [m.name, m.label])]));
  }

  drawSettings() {
    for (const knob of this.querySelectorAll('[data-setting]')) {
      const value = this.state[knob.dataset.setting];
      if (knob.type === 'checkbox') knob.checked = value;
      else if (knob !== document.activeElement || Number(knob.value) !== value) knob.value = String(value);
    }
  }
}

customElements.define('realm-workspace', Workspace);
})();
