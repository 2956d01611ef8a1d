// Starts `sluice serve` on a free port, as the C++ tests do, and ends only that process.
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const sluice = process.env.TEST_SLUICE;
const plugins = process.env.TEST_PLUGINS;
if (!sluice || !plugins) throw new Error('set TEST_SLUICE and TEST_PLUGINS to the built server and its plugin folder');

const folder = mkdtempSync(join(tmpdir(), 'sluice-openai-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

const model = join(folder, 'tiny.gguf');
const made = spawnSync(sluice, ['synth', '--preset', 'tiny', '--type', 'q8_0', '--out', model], { encoding: 'utf8', timeout: 60_000 });
if (made.status !== 0) throw new Error(`sluice synth failed: ${made.stderr}`);

let number = 0;

/** backend, samplers: TOML values; server, model: more TOML lines. */
export async function startServer({ backend = '"cpu"', samplers = '["chain"]', server = '', modelLines = '' } = {}) {
  const config = join(folder, `${++number}.toml`);
  writeFileSync(config, `
[server]
port = 0
log_level = "error"
${server}
[plugins]
dirs = ["${plugins}"]
[models.test]
path = "${model}"
backend = ${backend}
scheduler = "fcfs"
samplers = ${samplers}
decoder = "plain"
${modelLines}
`);
  const child = spawn(sluice, ['serve', config], { stdio: ['ignore', 'pipe', 'pipe'] });
  process.on('exit', () => child.kill('SIGKILL'));
  let out = '';
  let err = '';
  child.stderr.on('data', (bytes) => (err += bytes));
  const ended = new Promise((resolve) => child.on('exit', (code, signal) => resolve({ code, signal })));
  const port = await new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`the server said no port: ${out}${err}`)), 60_000);
    child.stdout.on('data', (bytes) => {
      out += bytes;
      const match = /listening on http:\/\/127\.0\.0\.1:(\d+)\n/.exec(out);
      if (match) clearTimeout(timer), resolve(Number(match[1]));
    });
    ended.then(() => reject(new Error(`the server ended: ${out}${err}`)));
  });
  const url = `http://127.0.0.1:${port}`;
  for (let i = 0; (await fetch(`${url}/health/ready`)).status !== 200; ++i) {
    if (i === 600) throw new Error(`the server did not become ready: ${err}`);
    await new Promise((wake) => setTimeout(wake, 100));
  }
  return {
    url,
    baseURL: `${url}/v1`,
    terminate: () => child.kill('SIGTERM'),
    ended,
    metric: async (name) => {
      const text = await (await fetch(`${url}/metrics`)).text();
      return text.split('\n').filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `))
        .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
    },
    stop: async () => {
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), 15_000);
      await ended;
      clearTimeout(timer);
    },
  };
}
