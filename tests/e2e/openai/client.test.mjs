// What users' programs do: the openai npm client, unchanged, against a real server.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import OpenAI, { APIConnectionError, APIError, APIUserAbortError, AuthenticationError, BadRequestError, InternalServerError,
  NotFoundError, RateLimitError } from 'openai';
import { startServer } from './server.mjs';

const clientOf = (server, options = {}) =>
  new OpenAI({ baseURL: server.baseURL, apiKey: 'none-needed', maxRetries: 0, timeout: 30_000, ...options });
const user = (content) => [{ role: 'user', content }];
// The mock says these letters again and again, whatever the prompt. The id of a letter is 3 + its byte.
const idsOf = (text) => [...Buffer.from(text)].map((byte) => byte + 3).join(' ');
const says = (text, more = '') => `{ use = "mock", script = "text", tokens = "${idsOf(text)}"${more} }`;

async function rejection(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  assert.fail('the request was not refused');
}

async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}
const textOf = (chunks, index = 0) =>
  chunks.flatMap((chunk) => chunk.choices).filter((choice) => choice.index === index)
    .map((choice) => choice.delta?.content ?? choice.text ?? '').join('');

describe('completions of a scripted model', () => {
  let server, openai;
  before(async () => {
    server = await startServer({ backend: says('the quick brown fox '), samplers: '["greedy"]' });
    openai = clientOf(server);
  });
  after(() => server.stop());

  test('models are listed and found', async () => {
    const ids = (await collect(await openai.models.list())).map((model) => model.id);
    assert.deepEqual(ids, ['test']);
    assert.equal((await openai.models.retrieve('test')).object, 'model');
  });

  test('a chat completes', async () => {
    const answer = await openai.chat.completions.create({ model: 'test', messages: user('hello'), max_tokens: 19 });
    assert.equal(answer.object, 'chat.completion');
    assert.match(answer.id, /cmpl/);
    assert.equal(answer.choices.length, 1);
    assert.equal(answer.choices[0].message.role, 'assistant');
    assert.equal(answer.choices[0].message.content, 'the quick brown fox');
    assert.equal(answer.choices[0].finish_reason, 'length');
    assert.equal(answer.usage.completion_tokens, 19);
    assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + 19);
    assert.equal(typeof answer.system_fingerprint, 'string');
    assert.ok(answer._request_id, 'x-request-id');
  });

  test('a chat streams, a token an event', async () => {
    const chunks = await collect(await openai.chat.completions.create(
      { model: 'test', messages: user('hello'), max_tokens: 40, stream: true }));
    assert.equal(textOf(chunks), 'the quick brown fox the quick brown fox ');
    assert.equal(chunks[0].choices[0].delta.role, 'assistant');
    assert.equal(new Set(chunks.map((chunk) => chunk.id)).size, 1);
    assert.equal(chunks.filter((chunk) => chunk.choices[0].delta.content).length, 40);
    assert.deepEqual(chunks.map((chunk) => chunk.choices[0].finish_reason).filter(Boolean), ['length']);
    assert.equal(chunks.at(-1).choices[0].finish_reason, 'length');
    assert.ok(chunks.every((chunk) => chunk.usage === undefined || chunk.usage === null));
  });

  test('include_usage adds one chunk without choices', async () => {
    const chunks = await collect(await openai.chat.completions.create(
      { model: 'test', messages: user('hello'), max_tokens: 5, stream: true, stream_options: { include_usage: true } }));
    const last = chunks.pop();
    assert.deepEqual(last.choices, []);
    assert.equal(last.usage.completion_tokens, 5);
    assert.ok(chunks.every((chunk) => chunk.usage === null));
  });

  test('the stream helper assembles the same', async () => {
    const stream = openai.chat.completions.stream({ model: 'test', messages: user('hello'), max_tokens: 9 });
    const final = await stream.finalChatCompletion();
    assert.equal(final.choices[0].message.content, 'the quick');
  });

  test('a completion completes and streams', async () => {
    const whole = await openai.completions.create({ model: 'test', prompt: 'x', max_tokens: 9 });
    assert.equal(whole.object, 'text_completion');
    assert.equal(whole.choices[0].text, 'the quick');
    const chunks = await collect(await openai.completions.create({ model: 'test', prompt: 'x', max_tokens: 9, stream: true }));
    assert.equal(textOf(chunks), 'the quick');
  });

  test('several prompts and n give an answer each', async () => {
    const answer = await openai.completions.create({ model: 'test', prompt: ['a', 'b'], n: 2, max_tokens: 3 });
    assert.deepEqual(answer.choices.map((choice) => choice.index), [0, 1, 2, 3]);
    assert.ok(answer.choices.every((choice) => choice.text === 'the'));
    assert.equal(answer.usage.completion_tokens, 12);
  });

  test('n answers are streamed side by side', async () => {
    const chunks = await collect(await openai.chat.completions.create(
      { model: 'test', messages: user('hello'), n: 3, max_tokens: 9, stream: true }));
    for (const index of [0, 1, 2]) assert.equal(textOf(chunks, index), 'the quick');
  });

  test('a stop string ends the text before it, and the usage with it', async () => {
    const request = { model: 'test', messages: user('hello'), max_tokens: 40, stop: ['own f', 'never'] };
    const answer = await openai.chat.completions.create(request);
    assert.equal(answer.choices[0].message.content, 'the quick br');
    assert.equal(answer.choices[0].finish_reason, 'stop');
    assert.equal(answer.usage.completion_tokens, 'the quick brown f'.length);
    const chunks = await collect(await openai.chat.completions.create(
      { ...request, stream: true, stream_options: { include_usage: true } }));
    assert.equal(textOf(chunks), 'the quick br');
    assert.equal(chunks.at(-1).usage.completion_tokens, 'the quick brown f'.length);
  });

  test('a stop string of one character, as a string', async () => {
    const answer = await openai.completions.create({ model: 'test', prompt: 'x', max_tokens: 40, stop: 'q' });
    assert.equal(answer.choices[0].text, 'the ');
  });

  test('max_completion_tokens wins over max_tokens', async () => {
    const answer = await openai.chat.completions.create(
      { model: 'test', messages: user('hello'), max_tokens: 40, max_completion_tokens: 3 });
    assert.equal(answer.choices[0].message.content, 'the');
  });

  test('log-probabilities join to the text', async () => {
    const answer = await openai.chat.completions.create(
      { model: 'test', messages: user('hello'), max_tokens: 9, logprobs: true, top_logprobs: 2 });
    const content = answer.choices[0].logprobs.content;
    assert.equal(content.map((token) => token.token).join(''), 'the quick');
    for (const token of content) {
      assert.ok(token.logprob <= 0);
      assert.deepEqual(token.bytes, [...Buffer.from(token.token)]);
      assert.equal(token.top_logprobs.length, 2);
      assert.equal(token.top_logprobs[0].token, token.token);
    }
    const legacy = await openai.completions.create({ model: 'test', prompt: 'x', max_tokens: 9, logprobs: 1 });
    assert.equal(legacy.choices[0].logprobs.tokens.join(''), 'the quick');
    assert.equal(legacy.choices[0].logprobs.token_logprobs.length, 9);
    assert.deepEqual(legacy.choices[0].logprobs.text_offset, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
  });

  test('log-probabilities end at the token that completes a stop string', async () => {
    const answer = await openai.completions.create({ model: 'test', prompt: 'x', max_tokens: 40, logprobs: 0, stop: 'ick' });
    assert.equal(answer.choices[0].text, 'the qu');
    assert.equal(answer.choices[0].logprobs.tokens.join(''), 'the quick');
  });

  test('every shape of a bad request is a 400 that names the field', async () => {
    const cases = [
      [{ messages: 'hello' }, 'messages'],
      [{ messages: [] }, 'messages'],
      [{ messages: [{ role: 'robot', content: 'x' }] }, 'messages[0].role'],
      [{ messages: [{ role: 'user', content: 123 }] }, 'messages[0].content'],
      [{ temperature: 3 }, 'temperature'],
      [{ temperature: 'hot' }, 'temperature'],
      [{ top_p: -0.1 }, 'top_p'],
      [{ presence_penalty: 5 }, 'presence_penalty'],
      [{ n: 0 }, 'n'],
      [{ n: 1000 }, 'n'],
      [{ max_tokens: -1 }, 'max_tokens'],
      [{ max_tokens: 1.5 }, 'max_tokens'],
      [{ max_completion_tokens: 0 }, 'max_completion_tokens'],
      [{ stop: 7 }, 'stop'],
      [{ stop: Array(100).fill('x') }, 'stop'],
      [{ seed: 'x' }, 'seed'],
      [{ logprobs: true, top_logprobs: 1000 }, 'top_logprobs'],
      [{ top_logprobs: 2 }, 'top_logprobs'],
      [{ logit_bias: { 99999999: 1 } }, 'logit_bias'],
      [{ logit_bias: { 5: 1000 } }, 'logit_bias'],
      [{ stream_options: { include_usage: true } }, 'stream_options'],
      [{ stream: 'yes' }, 'stream'],
    ];
    for (const [fields, param] of cases) {
      const error = await rejection(openai.chat.completions.create({ model: 'test', messages: user('x'), max_tokens: 1, ...fields }));
      assert.ok(error instanceof BadRequestError, `${JSON.stringify(fields)}: ${error}`);
      assert.equal(error.param, param, `${JSON.stringify(fields)}: ${error.message}`);
      assert.equal(error.type, 'invalid_request_error');
      assert.ok(error.requestID);
    }
  });

  test('what is not supported is refused, never ignored', async () => {
    const cases = [
      [{ tools: [{ type: 'function', function: { name: 'f', parameters: {} } }] }, 'tools'],
      [{ response_format: { type: 'json_object' } }, 'response_format'],
      [{ response_format: { type: 'json_schema', json_schema: { name: 's', schema: {} } } }, 'response_format'],
    ];
    for (const [fields, param] of cases) {
      const error = await rejection(openai.chat.completions.create({ model: 'test', messages: user('x'), ...fields }));
      assert.equal(error.status, 400);
      assert.equal(error.code, 'unsupported_parameter');
      assert.equal(error.param, param);
    }
    const greedy = await rejection(openai.chat.completions.create({ model: 'test', messages: user('x'), temperature: 0.5 }));
    assert.equal(greedy.status, 400, 'the greedy sampler knows the temperature 0 only');
    assert.equal(greedy.param, 'temperature');
  });

  test('a context that is too long is a 400, never cut', async () => {
    const prompt = await rejection(openai.completions.create({ model: 'test', prompt: 'x'.repeat(20_000), max_tokens: 1 }));
    assert.equal(prompt.status, 400);
    assert.equal(prompt.code, 'context_length_exceeded');
    const wish = await rejection(openai.completions.create({ model: 'test', prompt: 'x', max_tokens: 1_000_000 }));
    assert.equal(wish.code, 'context_length_exceeded');
    assert.equal(wish.param, 'max_tokens');
  });

  test('an unknown model or route is a 404', async () => {
    const model = await rejection(openai.chat.completions.create({ model: 'gpt-9', messages: user('x') }));
    assert.ok(model instanceof NotFoundError);
    assert.equal(model.code, 'model_not_found');
    assert.ok(await rejection(openai.models.retrieve('gpt-9')) instanceof NotFoundError);
    const route = await rejection(openai.post('/no/such/route', { body: {} }));
    assert.equal(route.status, 404);
  });

  test('405 names what is allowed', async () => {
    const error = await rejection(openai.get('/chat/completions'));
    assert.equal(error.status, 405);
    assert.match(error.headers.get('allow'), /POST/);
    assert.equal(error.type, 'invalid_request_error');
  });

  test('413 says the limit', async () => {
    const error = await rejection(openai.chat.completions.create({ model: 'test', messages: user('x'.repeat(5 << 20)) }));
    if (error instanceof APIConnectionError) return; // the server hung up while it was still being sent to
    assert.equal(error.status, 413);
    assert.equal(error.code, 'request_too_large');
    assert.match(error.message, /4194304/);
  });

  test('415 without application/json', async () => {
    const error = await rejection(openai.post('/chat/completions', {
      body: 'model=test', headers: { 'content-type': 'application/x-www-form-urlencoded' } }));
    assert.equal(error.status, 415);
  });

  test('a body that is not JSON is a 400', async () => {
    for (const body of ['{', '[]', '"x"', '{"model":"test"', '{"a":'.repeat(100), '']) {
      const response = await fetch(`${server.baseURL}/chat/completions`, { method: 'POST', headers: { 'content-type': 'application/json' }, body });
      assert.equal(response.status, 400, body);
      const { error } = await response.json();
      assert.deepEqual(Object.keys(error).sort(), ['code', 'message', 'param', 'type']);
    }
  });

  test('a field nobody knows is told in a header', async () => {
    const { response } = await openai.chat.completions.create(
      { model: 'test', messages: user('x'), max_tokens: 1, no_such_field: 1 }).withResponse();
    assert.equal(response.headers.get('x-sluice-ignored-fields'), 'no_such_field');
  });

  test('a request id is taken over', async () => {
    const { response } = await openai.models.list({ headers: { 'x-request-id': 'mine-1' } }).withResponse();
    assert.equal(response.headers.get('x-request-id'), 'mine-1');
  });
});

describe('sampling', () => {
  let server, openai;
  before(async () => {
    server = await startServer({ modelLines: 'context = 256' });
    openai = clientOf(server);
  });
  after(() => server.stop());
  const create = (more) => openai.chat.completions.create(
    { model: 'test', messages: user('hello'), max_tokens: 24, temperature: 1, ...more });

  test('a seed repeats, another does not', async () => {
    const [a, b, c] = [await create({ seed: 1 }), await create({ seed: 1 }), await create({ seed: 2 })];
    assert.equal(a.choices[0].message.content, b.choices[0].message.content);
    assert.notEqual(a.choices[0].message.content, c.choices[0].message.content);
  });

  test('n answers of a seed differ and repeat', async () => {
    const texts = async () => (await create({ seed: 7, n: 3 })).choices.map((choice) => choice.message.content);
    const first = await texts();
    assert.equal(new Set(first).size, 3);
    assert.deepEqual(await texts(), first);
  });

  test('temperature 0 repeats without a seed', async () => {
    const [a, b] = [await create({ temperature: 0 }), await create({ temperature: 0 })];
    assert.equal(a.choices[0].message.content, b.choices[0].message.content);
  });

  test('every sampling field is taken', async () => {
    const answer = await create({ top_p: 0.9, frequency_penalty: 0.5, presence_penalty: 0.5, top_k: 40, min_p: 0.01,
      repetition_penalty: 1.1, logit_bias: { 100: 2 }, ignore_eos: true, seed: 3 });
    assert.equal(answer.usage.completion_tokens, 24);
  });

  test('a bias of 100 decides the token', async () => {
    const answer = await create({ logit_bias: { [3 + 'z'.charCodeAt(0)]: 100 }, temperature: 0, max_tokens: 5 });
    assert.equal(answer.choices[0].message.content, 'zzzzz');
  });

  test('logprobs of a real model are those of a distribution', async () => {
    const answer = await create({ temperature: 0, logprobs: true, top_logprobs: 5 });
    for (const token of answer.choices[0].logprobs.content) {
      assert.ok(token.logprob < 0);
      const top = token.top_logprobs.map((entry) => entry.logprob);
      assert.deepEqual(top, [...top].sort((x, y) => y - x));
      assert.ok(top.reduce((sum, x) => sum + Math.exp(x), 0) <= 1.0001);
      assert.equal(token.logprob, top[0], 'greedy takes the best');
    }
  });
});

describe('keys', () => {
  let server;
  before(async () => {
    server = await startServer({ backend: says('abc'), samplers: '["greedy"]', server: 'api_keys = ["sesame-open-up"]' });
  });
  after(() => server.stop());

  test('a wrong key is a 401', async () => {
    const error = await rejection(clientOf(server, { apiKey: 'wrong-wrong' }).models.list());
    assert.ok(error instanceof AuthenticationError);
    assert.equal(error.code, 'invalid_api_key');
    assert.equal(error.type, 'authentication_error');
    assert.equal(error.headers.get('www-authenticate'), 'Bearer');
    assert.ok(!error.message.includes('wrong-wrong'), 'the key must not come back');
  });

  test('the right key opens', async () => {
    const answer = await clientOf(server, { apiKey: 'sesame-open-up' }).completions.create({ model: 'test', prompt: 'x', max_tokens: 3 });
    assert.equal(answer.choices[0].text, 'abc');
  });

  test('every route but health asks for it', async () => {
    for (const [method, path] of [['GET', '/v1/models'], ['GET', '/v1/models/test'], ['GET', '/metrics'], ['GET', '/version'],
      ['POST', '/v1/completions'], ['POST', '/v1/chat/completions'], ['POST', '/tokenize'], ['POST', '/detokenize'],
      ['GET', '/v1/ws'], ['GET', '/not/there']]) {
      const response = await fetch(server.url + path, { method, headers: { 'content-type': 'application/json' }, body: method === 'POST' ? '{}' : undefined });
      assert.equal(response.status, 401, path);
    }
    for (const path of ['/health', '/health/ready']) assert.equal((await fetch(server.url + path)).status, 200);
  });
});

describe('load', () => {
  test('a full queue is a 429 with Retry-After, and the client comes through by waiting', async () => {
    const server = await startServer({ backend: says('abc', ', step_us = 30000'), samplers: '["greedy"]', server: 'max_queued = 2' });
    try {
      const openai = clientOf(server);
      const slow = [0, 1].map(() => openai.completions.create({ model: 'test', prompt: 'x', max_tokens: 30, stream: true }));
      const streams = await Promise.all(slow);
      const error = await rejection(openai.completions.create({ model: 'test', prompt: 'x', max_tokens: 1 }));
      assert.ok(error instanceof RateLimitError, String(error));
      assert.equal(error.code, 'queue_full');
      assert.ok(Number(error.headers.get('retry-after')) >= 1);
      const patient = clientOf(server, { maxRetries: 4 }).completions.create({ model: 'test', prompt: 'x', max_tokens: 3 });
      for (const stream of streams) assert.equal(textOf(await collect(stream)), 'abc'.repeat(10));
      assert.equal((await patient).choices[0].text, 'abc');
    } finally {
      await server.stop();
    }
  });

  test('draining: what runs finishes, what comes gets a 503', async () => {
    const server = await startServer({ backend: says('abc', ', step_us = 30000'), samplers: '["greedy"]' });
    const openai = clientOf(server);
    const stream = await openai.completions.create({ model: 'test', prompt: 'x', max_tokens: 45, stream: true });
    server.terminate();
    // Idle connections are closed at the same moment, so a request on one of them may find nobody: hence the catch.
    const ready = () => fetch(`${server.url}/health/ready`).then(({ status }) => status, () => 0);
    for (let i = 0; (await ready()) !== 503; ++i) assert.ok(i < 200);
    const error = await rejection(openai.completions.create({ model: 'test', prompt: 'x', max_tokens: 1 }));
    assert.ok(error instanceof InternalServerError, String(error));
    assert.equal(error.status, 503);
    assert.equal(error.code, 'shutting_down');
    assert.ok(error.headers.get('retry-after'));
    assert.equal(textOf(await collect(stream)), 'abc'.repeat(15));
    assert.deepEqual(await server.ended, { code: 0, signal: null });
  });

  test('aborting frees everything, with and without stream', async () => {
    const server = await startServer({ backend: says('abc', ', step_us = 20000'), samplers: '["greedy"]' });
    try {
      const openai = clientOf(server);
      const stop = new AbortController();
      const stream = await openai.completions.create({ model: 'test', prompt: 'x', max_tokens: 2000, stream: true }, { signal: stop.signal });
      let text = '';
      try {
        for await (const chunk of stream) {
          text += chunk.choices[0].text;
          if (text.length === 5) stop.abort();
        }
      } catch (error) {
        assert.ok(error instanceof APIUserAbortError || error.name === 'AbortError', String(error));
      }
      assert.equal(text.slice(0, 5), 'abcab');
      const pending = new AbortController();
      const whole = openai.completions.create({ model: 'test', prompt: 'x', max_tokens: 2000 }, { signal: pending.signal });
      setTimeout(() => pending.abort(), 200);
      assert.ok(await rejection(whole) instanceof APIUserAbortError);
      for (let i = 0; ; ++i) {
        const left = await server.metric('sluice_requests_running') + await server.metric('sluice_requests_waiting') +
          await server.metric('sluice_kv_blocks_used');
        if (left === 0) break;
        assert.ok(i < 100, `${left} left behind`);
        await new Promise((wake) => setTimeout(wake, 20));
      }
      assert.equal(await server.metric('sluice_cancelled_total'), 2);
      assert.equal((await openai.completions.create({ model: 'test', prompt: 'x', max_tokens: 3 })).choices[0].text, 'abc');
    } finally {
      await server.stop();
    }
  });

  test('an error of the backend reaches the client as an error, in a stream too', async () => {
    const server = await startServer({ backend: says('abc', ', fail_every = 4, fail_code = "internal"'), samplers: '["greedy"]' });
    try {
      const openai = clientOf(server);
      const error = await rejection(openai.completions.create({ model: 'test', prompt: 'x', max_tokens: 50 }));
      assert.equal(error.status, 500);
      const stream = await openai.completions.create({ model: 'test', prompt: 'x', max_tokens: 50, stream: true });
      assert.ok(await rejection(collect(stream)) instanceof APIError);
    } finally {
      await server.stop();
    }
  });
});
