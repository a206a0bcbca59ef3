// What a reader does with a report, in headless Chromium: open, switch, slide, download, print.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { after, before, describe, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { chromium } from 'playwright-core';

const { PROGRAM, OUT, CHROMIUM = '/usr/bin/chromium' } = process.env;
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const run = (name, ...options) => execFileSync(PROGRAM, [...options, '--out', `${OUT}/${name}`, '--quiet']);

const SCRIPT = '<script>window.hacked = true</script><img src=x onerror="window.hacked = true">';
const LONG = `${SCRIPT}"'\u202e${'x'.repeat(10_000)}`;

// Rows with a name that a page must not run, in three columns.
function hostileTable() {
  const quoted = (text) => `"${text.replaceAll('"', '""')}"`;
  const rows = Array.from({ length: 60 }, (_, i) => [Math.sin(i), Math.cos(3 * i), i % 7, i % 2 ? quoted(SCRIPT) : 'b'].join());
  return [[quoted(LONG), quoted(`${SCRIPT}2`), '\u202ec', quoted('=1+1')].join(), ...rows].join('\n') + '\n';
}

function hostileExperiment() {
  const experiment = readFileSync(`${OUT}/sweep/experiment.toml`, 'utf8');
  let label = 0;
  return experiment.replace(/^label = .*$/gm, () => `label = ${JSON.stringify(`${label++ ? LONG : SCRIPT}${label}`)}`);
}

const REPORTS = {
  chapter: () => run('chapter'),
  minimize: () => run('minimize', 'minimize', '--function', 'rosenbrock', '--steps', '200', '--optimizer', 'adam', '--optimizer', 'sgd:lr=1'),
  sweep: () => run('sweep', 'sweep', '--trials', '7', '--seeds', '3', '--confirm-seeds', '10', '--epochs', '40'),
  problems: () => run('problems', 'sweep', '--trials', '5', '--seeds', '2', '--confirm-seeds', '6', '--epochs', '20',
    '--problem', 'circles', '--problem', 'blobs', '--problem', 'booth', '--problem', 'spirals', '--problem', 'moons'),
  hostile: () => {
    writeFileSync(`${OUT}/<script>alert(1)<⁄script>.csv`, hostileTable());
    run('hostile', 'train', '--data', `${OUT}/<script>alert(1)<⁄script>.csv`, '--target', '=1+1', '--epochs', '20', '--batch-size', '8', '--hidden', '8');
  },
  'hostile-sweep': () => {
    writeFileSync(`${OUT}/hostile.toml`, hostileExperiment());
    run('hostile-sweep', 'run', `${OUT}/hostile.toml`);
  },
};
const SIZES = [[1400, 'light'], [1400, 'dark'], [390, 'light'], [390, 'dark']];

let browser;
before(async () => {
  mkdirSync(OUT, { recursive: true });
  for (const make of Object.values(REPORTS)) make();
  browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox'] });
});
after(() => browser?.close());

async function open(name, [width, colorScheme]) {
  const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme, reducedMotion: 'reduce' });
  const page = await context.newPage();
  const faults = [];
  page.on('console', (message) => faults.push(`${message.type()}: ${message.text()}`));
  page.on('pageerror', (error) => faults.push(String(error)));
  const url = pathToFileURL(`${OUT}/${name}/report.html`).href;
  page.on('request', (request) => request.url() !== url && !request.url().startsWith('data:') && faults.push(`asks for ${request.url()}`));
  await page.goto(url);
  await page.waitForSelector('[data-drawn]', { state: 'attached' });
  return { page, faults, close: () => context.close() };
}

// What is drawn, apart from numbers that ECharts counts up. Charts are drawn a frame later.
async function look(panels) {
  await panels.page().waitForTimeout(150);
  return panels.evaluate((all) => [...all.querySelectorAll('.chart')].map((chart) => {
    const shapes = [...chart.querySelectorAll('path, text, image')];
    const canvas = chart.querySelector('canvas');
    const style = ['d', 'fill', 'stroke', 'stroke-width'];
    // In any order: what was hidden comes back behind the others.
    const drawn = shapes.map((shape) => style.map((name) => shape.getAttribute(name)).join() + shape.textContent).sort();
    return (canvas ? canvas.toDataURL() : drawn.join('\n')) + chart.closest('.panel').hidden;
  }).join('\n'));
}

async function changes(panels, act) {
  const earlier = await look(panels);
  await act();
  assert.ok(await look(panels) !== earlier, 'the picture is the same');
  return earlier;
}

for (const name of Object.keys(REPORTS)) {
  describe(name, () => {
    for (const size of SIZES) {
      test(`${size.join(' ')}: no fault, nothing beside the page, accessible`, async () => {
        const { page, faults, close } = await open(name, size);
        const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(overflow <= 0, `${overflow} pixels too wide`);
        await page.evaluate(() => document.querySelectorAll('details').forEach((details) => { details.open = true; }));
        const open_overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(open_overflow <= 0, `${open_overflow} pixels too wide with open tables`);
        await page.evaluate(axe);
        const { violations } = await page.evaluate(() => axe.run());
        const serious = violations.filter(({ impact }) => impact === 'serious' || impact === 'critical');
        assert.deepEqual(serious.map(({ id, nodes }) => [id, nodes[0].html.slice(0, 200)]), []);
        await page.evaluate(() => document.querySelectorAll('details').forEach((details) => { details.open = false; }));
        await page.waitForTimeout(300);
        await page.screenshot({ path: `${OUT}/${name}-${size.join('-')}.png`, fullPage: true });
        assert.deepEqual(faults, []);
        await close();
      });
    }

    test('it is one small file with headings in order, and words and a table for every figure', async () => {
      const bytes = statSync(`${OUT}/${name}/report.html`).size;
      assert.ok(bytes <= 2_000_000, `${bytes} bytes`);
      const { page, close } = await open(name, SIZES[0]);
      const levels = await page.$$eval('h1, h2, h3, h4', (all) => all.map((heading) => Number(heading.tagName[1])));
      levels.reduce((last, level) => { assert.ok(level <= last + 1, `${levels}`); return level; }, 0);
      assert.equal(levels.filter((level) => level === 1).length, 1);
      const [lang, title] = await page.evaluate(() => [document.documentElement.lang, document.title]);
      assert.ok(lang === 'en' && title.length > 5);
      const words = await page.$$eval('.chart', (all) => all.map((chart) => chart.getAttribute('aria-label')));
      assert.ok(words.length > 1 && words.every((text) => text.length > 20), words.join('\n'));
      const without = await page.$$eval('figure', (all) => all.filter((figure) => !figure.querySelector('table')).length);
      assert.equal(without, 0);
      // Pictures lie beside the page.
      for (const href of await page.$$eval('.pictures a', (all) => all.map((link) => link.getAttribute('href')))) {
        assert.ok(statSync(`${OUT}/${name}/${href}`).size > 1000, href);
      }
      await close();
    });

    test('the legend, also by keyboard, the slider and the switch change the picture, and back', async () => {
      const { page, faults, close } = await open(name, SIZES[0]);
      const figure = page.locator('figure').first();
      const panels = figure.locator('.panels');
      const button = page.locator('.legend button').first();
      const first = await changes(panels, () => button.click());
      assert.equal(await button.getAttribute('aria-pressed'), 'false');
      await button.focus();
      await page.keyboard.press('Space');
      assert.ok(await look(panels) === first, 'the picture is not what it was');
      const log = figure.locator('[data-log]');
      await changes(panels, () => log.click());
      await log.click();
      assert.ok(await look(panels) === first, 'the picture is not what it was');
      const slider = page.locator('[data-frame]').first();
      if (await slider.count()) {
        const maps = page.locator('figure', { has: page.locator('[data-frame]') }).first();
        await changes(maps, () => slider.fill('0'));
        assert.equal(await maps.locator('output').inputValue(), '0');
      }
      await page.emulateMedia({ colorScheme: 'dark' });
      await changes(panels, () => page.emulateMedia({ colorScheme: 'light' }));
      assert.deepEqual(faults, []);
      await close();
    });

    test('numbers at the pointer, data as CSV, and print', async () => {
      const { page, faults, close } = await open(name, SIZES[0]);
      const chart = page.locator('.chart').first();
      await chart.hover();
      await page.waitForSelector('.tip', { timeout: 3000 });
      assert.match(await page.locator('.tip').first().innerText(), /\d/);
      // Chromium asks after ten.
      for (const button of (await page.locator('[data-download]').all()).slice(0, 9)) {
        const [download] = await Promise.all([page.waitForEvent('download'), button.click()]);
        const text = readFileSync(await download.path(), 'utf8');
        assert.ok(text.startsWith('panel,optimizer,x,y') && text.split('\n').length > 3 && !text.includes('NaN'), text.slice(0, 300));
        assert.ok(!/(^|,)"?[=@+]/m.test(text), 'a cell that a sheet would compute');
      }
      const pdf = await page.pdf({ path: `${OUT}/${name}.pdf`, format: 'A4' });
      assert.ok(pdf.length > 20_000);
      assert.deepEqual(faults, []);
      await close();
    });

    test('what names hold is text', async () => {
      const { page, close } = await open(name, SIZES[0]);
      await page.locator('.chart').first().hover();
      await page.waitForTimeout(300);
      assert.equal(await page.evaluate(() => window.hacked), undefined);
      assert.equal(await page.locator('body img, body iframe').count(), 0);
      assert.equal(await page.locator('script').count(), 3);
      const text = await page.evaluate(() => document.body.innerText);
      assert.equal(text.includes('\u202e'), false, 'a mark that turns the text around');
      assert.equal(text.includes('x'.repeat(200)), false, 'a name at full length');
      if (name.startsWith('hostile')) assert.ok(text.includes('<script>'), 'the name as it is');
      await close();
    });
  });
}
