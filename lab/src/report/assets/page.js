// Turns the numbers of the page into options of ECharts. All text comes from the page and is set as text, never as HTML.
(() => {
  'use strict';
  const data = JSON.parse(document.getElementById('data').textContent);
  const prefersDark = matchMedia('(prefers-color-scheme: dark)');
  let printing = false;
  const isDark = () => prefersDark.matches && !printing;
  // Before print, the page still has the colors of the screen.
  const ON_PAPER = { '--ink': '#000000', '--soft': '#333333', '--line': '#bbbbbb', '--paper': '#ffffff' };
  const css = (name) => (printing ? ON_PAPER[name] : getComputedStyle(document.documentElement).getPropertyValue(name).trim());
  const color = (look) => (look ? (isDark() ? look.dark : look.light) : css('--soft'));

  // A number as a reader writes it.
  function short(x) {
    if (x === null || x === undefined) return 'none';
    if (x === 0) return '0';
    const size = Math.abs(x);
    return size >= 1e-4 && size < 1e6 ? String(Number(x.toPrecision(4))) : String(Number(x.toPrecision(4)).toExponential()).replace('e+', 'e');
  }

  // The bytes of a map's frame, once they are needed.
  function bytes(map, frame) {
    map.decoded ??= [];
    return (map.decoded[frame] ??= Uint8Array.from(atob(map.frames[frame]), (c) => c.charCodeAt(0)));
  }

  const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  const mix = (a, b, share) => a.map((x, i) => Math.round(x + (b[i] - x) * share));
  // Classes by hue and confidence; levels from dark to light in bands, which read as contours.
  function cellColor(byte, isClass) {
    const paper = rgb(isDark() ? '#15181c' : '#ffffff');
    if (byte === 255) return paper;
    if (isClass) return mix(paper, rgb(data.classes[(byte >> 4) % data.classes.length]), 0.12 + 0.5 * (byte & 15) / 15);
    const [low, high] = isDark() ? ['#3f6486', '#15181c'] : ['#86a3bd', '#ffffff'];
    return mix(rgb(low), rgb(high), Math.floor(byte / 255 * 16) / 15);
  }

  // Levels between four cells, so that bands have smooth edges. Classes have nothing between them.
  const FINER = 6;
  function finer(cells, n) {
    const m = n * FINER;
    const fine = new Uint8Array(m * m);
    const place = (at) => Math.min(n - 1, Math.max(0, (at + 0.5) / FINER - 0.5));
    for (let row = 0; row < m; row++) {
      const y = place(row);
      const [low, high, up] = [Math.floor(y) * n, Math.ceil(y) * n, y % 1];
      for (let column = 0; column < m; column++) {
        const x = place(column);
        const [left, right, across] = [Math.floor(x), Math.ceil(x), x % 1];
        const four = [cells[low + left], cells[low + right], cells[high + left], cells[high + right]];
        const [a, b, c, d] = four;
        const between = (a + (b - a) * across) * (1 - up) + (c + (d - c) * across) * up;
        fine[row * m + column] = four.includes(255) ? 255 : Math.round(between);
      }
    }
    return [fine, m];
  }

  function picture(map, frame) {
    const isClass = map.classes.length > 0;
    const [cells, n] = isClass ? [bytes(map, frame), map.cells] : finer(bytes(map, frame), map.cells);
    const colors = Array.from({ length: 256 }, (_, byte) => cellColor(byte, isClass));
    const canvas = document.createElement('canvas');
    canvas.width = canvas.height = n;
    const context = canvas.getContext('2d');
    const image = context.createImageData(n, n);
    for (let at = 0; at < n * n; at++) {
      const row = n - 1 - Math.floor(at / n);
      image.data.set([...colors[cells[at]], 255], 4 * (row * n + at % n));
    }
    context.putImageData(image, 0, 0);
    return canvas;
  }

  const fullName = (section, series) =>
    [section.optimizers[series.optimizer]?.name, series.name].filter(Boolean).join(', ');

  // What is not positive has no place on an axis of equal ratios.
  const visible = (x, log) => (x === null || (log && x <= 0) ? null : x);

  const nameWidth = (names, width) => Math.min(0.35 * width, Math.max(...names.map((name) => name.length)) * 8.5);

  function axis(of, log, isX, width) {
    const style = { color: css('--ink') };
    const common = {
      name: of.name,
      nameLocation: 'middle',
      nameGap: isX ? 26 : 48,
      nameTextStyle: style,
      nameTruncate: { maxWidth: isX ? width - 90 : 260, ellipsis: '…' },
      axisLabel: { color: css('--ink'), hideOverlap: true, formatter: of.names.length ? undefined : (x) => short(x) },
      containShape: false,
      axisLine: { show: true, onZero: false, lineStyle: { color: css('--soft') } },
      splitLine: { show: !of.range, lineStyle: { color: css('--line') } },
    };
    if (of.names.length) {
      const rows = of.names.map((_, at) => at);
      const label = { color: css('--ink'), width: nameWidth(of.names, width), overflow: 'truncate', customValues: rows, formatter: (at) => of.names[at] };
      const ends = { min: -0.5, max: of.names.length - 0.5, inverse: true };
      return { ...common, ...ends, type: 'value', axisLabel: label, axisTick: { customValues: rows }, splitLine: { show: false } };
    }
    const range = of.range ? { min: of.range[0], max: of.range[1] } : { scale: true, max: of.most ?? undefined };
    // Labels of the ends of an exact range would be long numbers.
    const label = of.range ? { ...common.axisLabel, showMinLabel: false, showMaxLabel: false } : common.axisLabel;
    return { ...common, ...range, axisLabel: label, type: log ? 'log' : 'value' };
  }

  // Between the lower and the upper end at each point.
  function band(series, look, logX, logY) {
    const corner = (x, y) => [visible(x, logX), visible(y, logY)];
    const ends = series.points.map(([x], at) => [corner(x, series.band[at][0]), corner(x, series.band[at][1])]);
    const whole = ends.filter((pair) => pair.flat().every((x) => x !== null));
    return {
      type: 'custom',
      silent: true,
      data: whole.length > 1 ? [0] : [],
      clip: true,
      z: 1,
      encode: { x: -1, y: -1 },
      renderItem: (_, api) => {
        const points = [...whole.map((pair) => pair[0]), ...whole.map((pair) => pair[1]).reverse()];
        const style = { fill: color(look), opacity: 0.15 };
        return { type: 'polygon', shape: { points: points.map((point) => api.coord(point)) }, style };
      },
    };
  }

  // From the left to the right end at each point, or from the lower to the upper. An end that is infinite is that of the axis.
  function whiskers(series, look, logX, logY, isX) {
    const lines = series.points.map(([x, y], at) => {
      const [from, to] = isX ? series.whiskers[at] : series.band[at];
      return isX ? [[from, y], [to, y]] : [[x, from], [x, to]];
    });
    const isDrawn = ([x, y]) => (isX ? y !== null : x !== null) && !(logX && x !== null && x <= 0) && !(logY && y !== null && y <= 0);
    const whole = lines.filter((line) => line.every(isDrawn));
    return {
      type: 'custom',
      silent: true,
      data: whole.map((_, at) => at),
      clip: true,
      z: 2,
      encode: { x: -1, y: -1 },
      renderItem: (params, api) => {
        const { x, y, width, height } = params.coordSys;
        const [[x1, y1], [x2, y2]] = whole[params.dataIndex].map(([a, b], end) => {
          const [right, down] = api.coord([a ?? 0, b ?? 0]);
          return [a === null ? x + width * end : right, b === null ? y + height * (1 - end) : down];
        });
        return { type: 'line', shape: { x1, y1, x2, y2 }, style: { stroke: color(look), lineWidth: 3 } };
      },
    };
  }

  // Some markers on a line, for who cannot tell its color. Lines that lie on each other have them at different points.
  function hasMarker(series, at) {
    const step = Math.max(1, Math.ceil(series.points.length / 6));
    return series.points.length === 1 || at % step === (series.optimizer * Math.ceil(step / 8)) % step;
  }

  function seriesOf(section, panel, series, logX, logY) {
    const look = section.optimizers[series.optimizer];
    const thin = series.shape === 'thin';
    const marked = series.shape === 'marked' || series.shape === 'points';
    const marks = series.marks.map((mark) => ({
      coord: mark.at,
      name: mark.text,
      symbol: mark.cross ? 'path://M0,2L2,0L5,3L8,0L10,2L7,5L10,8L8,10L5,7L2,10L0,8L3,5Z' : 'circle',
      symbolSize: mark.cross ? 11 : 15,
      itemStyle: mark.cross ? { color: color(look) } : { color: 'transparent', borderColor: color(look), borderWidth: 2 },
    }));
    const main = {
      type: series.shape === 'points' ? 'scatter' : 'line',
      name: fullName(section, series),
      data: series.points.map(([x, y]) => [visible(x, logX), visible(y, logY)]),
      symbol: look ? `path://${look.marker}` : 'circle',
      symbolSize: marked ? (series.shape === 'points' ? 11 : panel.map ? 5 : 7) : (_, { dataIndex }) => (hasMarker(series, dataIndex) ? 9 : 0),
      showSymbol: look !== undefined && !thin,
      showAllSymbol: true,
      connectNulls: false,
      clip: true,
      z: thin ? 4 : 3,
      itemStyle: { color: color(look) },
      lineStyle: { color: color(look), width: thin ? 1 : 2 + 4 * series.beneath, type: thin ? [3, 3] : look?.dash ?? 'solid' },
      emphasis: { disabled: true },
      markPoint: { silent: true, animation: false, label: { show: false }, data: marks },
    };
    const parts = [main];
    if (series.band.length) parts.push(series.shape === 'points' ? whiskers(series, look, logX, logY, false) : band(series, look, logX, logY));
    if (series.whiskers.length) parts.push(whiskers(series, look, logX, logY, true));
    return parts;
  }

  // Points that no one sees: the axes reach to the ends of bands and whiskers. One lucky seed does not press the others flat.
  function reach(shown, logX, logY, most) {
    const positive = shown.flatMap((series) => series.points).map(([, y]) => y).filter((y) => y > 0);
    const least = logY && positive.length ? Math.min(...positive) / 10 : -Infinity;
    const ends = shown.flatMap((series) => series.points.flatMap(([x, y], at) => [
      ...(series.band[at] ?? []).filter((end) => end !== null).map((end) => [x, Math.max(end, least)]),
      ...(series.whiskers[at] ?? []).filter((end) => end !== null).map((end) => [end, y]),
    ]));
    const data = ends.filter(([, y]) => y <= most).map(([x, y]) => [visible(x, logX), visible(y, logY)]);
    return { type: 'scatter', data, symbolSize: 0, silent: true, tooltip: { show: false } };
  }

  function mapSeries(figure, panel, state) {
    const { map, x, y } = panel;
    const canvas = picture(map, Math.min(state.frame, map.frames.length - 1));
    const image = {
      type: 'custom',
      silent: true,
      data: [0],
      z: 0,
      clip: true,
      encode: { x: -1, y: -1 },
      renderItem: (_, api) => {
        const [left, bottom] = api.coord([x.range[0], y.range[0]]);
        const [right, top] = api.coord([x.range[1], y.range[1]]);
        return { type: 'image', style: { image: canvas, x: left, y: top, width: right - left, height: bottom - top } };
      },
    };
    // On a dark map, a point of the same hue is lighter.
    const pointColor = (hex) => (isDark() ? `rgb(${mix(rgb(hex), rgb('#ffffff'), 0.5).join()})` : hex);
    const tint = (point) =>
      map.classes.length
        ? pointColor(data.classes[point.is % data.classes.length])
        : `rgb(${mix(rgb('#1d3c58'), rgb('#ffffff'), Math.min(1, Math.max(0, point.is))).join()})`;
    const rows = (tested) => ({
      type: 'scatter',
      silent: true,
      z: 2,
      symbol: tested ? 'diamond' : 'circle',
      symbolSize: tested ? 6 : 4,
      data: figure.points.filter((point) => point.tested === tested).map((point) => ({
        value: point.at,
        itemStyle: { color: tint(point), borderColor: isDark() ? '#000000' : '#ffffff', borderWidth: 0.5 },
      })),
    });
    return figure.points.length ? [image, rows(false), rows(true)] : [image];
  }

  // Names and numbers at the pointer, as elements: what a name holds is never read as HTML.
  function tip(section, panel, params) {
    const all = Array.isArray(params) ? params : [params];
    const known = all.filter((one) => one.seriesName && Array.isArray(one.value) && one.value[1] !== null);
    if (!known.length) return '';
    const box = document.createElement('div');
    box.className = 'tip';
    const title = document.createElement('b');
    title.textContent = `${panel.x.name} ${short(known[0].value[0])}`;
    box.append(title);
    for (const one of known.slice(0, 12)) {
      const line = document.createElement('div');
      const dot = document.createElement('i');
      dot.style.background = one.color;
      const y = panel.y.names.length ? panel.y.names[one.value[1]] : short(one.value[1]);
      const at = all.length > 1 && one.value[0] !== known[0].value[0] ? ` at ${short(one.value[0])}` : '';
      line.append(dot, `${one.seriesName}: ${y}${at}`);
      box.append(line);
    }
    if (known.length > 12) box.append(`and ${known.length - 12} more`);
    return box;
  }

  function option(section, figure, panel, state, width, animate) {
    const logX = panel.x.log;
    const logY = state.log ?? panel.y.log;
    const shown = panel.series.filter((series) => !state.hidden.has(series.optimizer));
    const series = shown.filter((one) => one.points.length).flatMap((one) => seriesOf(section, panel, one, logX, logY));
    if (panel.level && !(logY && panel.level[0] <= 0) && series.length) {
      series[0].markLine = {
        silent: true,
        symbol: 'none',
        lineStyle: { color: css('--soft'), type: [6, 4] },
        label: { formatter: panel.level[1], position: 'insideStartTop', color: css('--soft') },
        data: [{ yAxis: panel.level[0] }],
      };
    }
    const names = panel.y.names.length ? nameWidth(panel.y.names, width) : 0;
    return {
      animation: animate && !matchMedia('(prefers-reduced-motion: reduce)').matches,
      animationDuration: 250,
      backgroundColor: 'transparent',
      textStyle: { fontFamily: getComputedStyle(document.body).fontFamily },
      grid: { left: names ? names + 18 : 64, right: 18, top: 14, bottom: 44, outerBoundsMode: 'none' },
      xAxis: axis(panel.x, logX, true, width),
      yAxis: axis(panel.y, logY, false, width),
      tooltip: {
        trigger: panel.map || panel.y.names.length || shown.some((one) => one.shape === 'points') ? 'item' : 'axis',
        confine: true,
        backgroundColor: css('--paper'),
        borderColor: css('--line'),
        textStyle: { color: css('--ink') },
        axisPointer: { lineStyle: { color: css('--soft') } },
        formatter: (params) => tip(section, panel, params),
      },
      series: panel.map ? [...mapSeries(figure, panel, state), ...series] : [...series, reach(shown, logX, logY, panel.y.most ?? Infinity)],
    };
  }

  // A cell of a CSV file. A sheet would compute what begins like a formula.
  function cell(value) {
    if (typeof value === 'number') return String(value);
    const text = value === null || value === undefined ? '' : String(value);
    const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  }

  function csv(section, figure) {
    const rows = [['panel', 'optimizer', 'x', 'y', 'lower', 'upper', 'left', 'right']];
    for (const panel of figure.panels) {
      for (const series of panel.series) {
        series.points.forEach(([x, y], at) => {
          const named = panel.y.names.length ? panel.y.names[y] : y;
          rows.push([panel.title, fullName(section, series), x, named, ...(series.band[at] ?? [null, null]), ...(series.whiskers[at] ?? [null, null])]);
        });
      }
    }
    if (figure.panels.some((panel) => panel.map)) {
      rows.push([], ['panel', 'epoch', 'x', 'y', 'class or level', 'confidence']);
      for (const panel of figure.panels.filter((panel) => panel.map)) {
        const { map, x, y } = panel;
        const middle = ([from, to], at) => Number((from + (to - from) * (at + 0.5) / map.cells).toPrecision(7));
        map.frames.forEach((_, frame) => {
          bytes(map, frame).forEach((byte, at) => {
            const place = [middle(x.range, at % map.cells), middle(y.range, Math.floor(at / map.cells))];
            const is = byte === 255 ? [null, null] : map.classes.length ? [map.classes[byte >> 4] ?? byte >> 4, (byte & 15) / 15] : [byte / 254, null];
            rows.push([panel.title, figure.frames[frame] ?? null, ...place, ...is]);
          });
        });
      }
      rows.push(...(figure.points.length ? [[], ['row', 'x', 'y', 'class or level']] : []));
      figure.points.forEach((point) => rows.push([point.tested ? 'test' : 'training', ...point.at, point.is]));
    }
    return rows.map((row) => row.map(cell).join(',')).join('\n') + '\n';
  }

  function download(section, figure) {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([csv(section, figure)], { type: 'text/csv' }));
    link.download = `${section.id}-${figure.id}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  const all = [];
  for (const section of data.sections) {
    const hidden = new Set();
    const node = document.getElementById(section.id);
    const charts = [];
    for (const figure of section.figures) {
      const state = { hidden, frame: Math.max(0, figure.frames.length - 1), log: null };
      const box = document.getElementById(`${section.id}-${figure.id}`);
      const own = [...box.querySelectorAll('.panel')].map((element) => {
        const panel = figure.panels[Number(element.dataset.panel)];
        const target = element.querySelector('.chart');
        // An image in SVG would not fill its place.
        const chart = echarts.init(target, null, { renderer: panel.map ? 'canvas' : 'svg' });
        // A map of one optimizer is shown and hidden with it.
        const of = panel.map && figure.panels.length > 1 ? panel.series[0].optimizer : null;
        const draw = (animate) => {
          element.hidden = of !== null && hidden.has(of);
          if (!element.hidden) chart.setOption(option(section, figure, panel, state, target.clientWidth, animate), { notMerge: true });
        };
        new ResizeObserver(() => { if (!element.hidden && target.clientWidth) chart.resize(); }).observe(target);
        return { draw, chart };
      });
      const redraw = (animate) => own.forEach((one) => one.draw(animate));
      const log = box.querySelector('[data-log]');
      if (log) {
        log.checked = figure.panels.some((panel) => panel.y.log);
        log.addEventListener('change', () => { state.log = log.checked; redraw(true); });
      }
      const slider = box.querySelector('[data-frame]');
      slider?.addEventListener('input', () => {
        state.frame = Number(slider.value);
        slider.nextElementSibling.value = figure.frames[state.frame];
        redraw(false);
      });
      box.querySelector('[data-download]').addEventListener('click', () => download(section, figure));
      box.querySelectorAll('[data-class]').forEach((mark) => {
        mark.style.background = data.classes[Number(mark.dataset.class) % data.classes.length];
      });
      charts.push({ redraw, own });
    }
    const buttons = [...node.querySelectorAll('[data-optimizer]')];
    const samples = () => {
      for (const button of buttons) {
        const look = section.optimizers[Number(button.dataset.optimizer)];
        const element = (name, attributes) => {
          const made = document.createElementNS('http://www.w3.org/2000/svg', name);
          Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
          return made;
        };
        const dash = (look.dash ?? []).join(' ');
        const line = element('line', { x1: 1, x2: 33, y1: 6, y2: 6, stroke: color(look), 'stroke-width': 2, 'stroke-dasharray': dash });
        const marker = element('path', { d: look.marker, transform: 'translate(17 6)', fill: color(look) });
        button.querySelector('svg').replaceChildren(line, marker);
      }
    };
    const redraw = (animate) => { samples(); charts.forEach((one) => one.redraw(animate)); };
    for (const button of buttons) {
      button.addEventListener('click', () => {
        const number = Number(button.dataset.optimizer);
        if (!hidden.delete(number)) hidden.add(number);
        button.setAttribute('aria-pressed', String(!hidden.has(number)));
        redraw(true);
      });
    }
    node.querySelector('.legend .all')?.addEventListener('click', () => {
      // From all to none and back, so that one of many can be chosen.
      const none = hidden.size === 0;
      hidden.clear();
      buttons.forEach((button) => {
        if (none) hidden.add(Number(button.dataset.optimizer));
        button.setAttribute('aria-pressed', String(!none));
      });
      redraw(true);
    });
    redraw(false);
    all.push({ redraw, charts });
  }
  const redraw = () => all.forEach((one) => one.redraw(false));
  prefersDark.addEventListener('change', redraw);
  const drawings = () => document.querySelectorAll('.chart svg');
  addEventListener('beforeprint', () => {
    printing = true;
    redraw();
    // The style scales drawings to the paper.
    drawings().forEach((svg) => svg.setAttribute('viewBox', `0 0 ${svg.getAttribute('width')} ${svg.getAttribute('height')}`));
  });
  addEventListener('afterprint', () => {
    printing = false;
    redraw();
    drawings().forEach((svg) => svg.removeAttribute('viewBox'));
  });
  document.documentElement.dataset.drawn = 'true';
})();
