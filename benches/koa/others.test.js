// What koa-session does where the comparison in README.md says so. `npm test` runs it.
import assert from 'node:assert';
import { once } from 'node:events';
import { test } from 'node:test';
import Koa from 'koa';
import { createSession } from 'koa-session';

/** Holds requests that have loaded their session until the test lets them write. */
class Gate {
  constructor(requests) {
    this.waiting = requests;
    this.loaded = new Promise((resolve) => { this.allLoaded = resolve; });
    this.opened = new Promise((resolve) => { this.open = resolve; });
  }

  pass() {
    this.waiting -= 1;
    if (this.waiting === 0) this.allLoaded();
    return this.opened;
  }
}

function store() {
  const rows = new Map();
  return {
    get: async (key) => structuredClone(rows.get(key)),
    set: async (key, session) => { rows.set(key, structuredClone(session)); },
    destroy: async (key) => { rows.delete(key); },
  };
}

async function start(gate, middleware = (app) => createSession({ store: store() }, app)) {
  const app = new Koa();
  app.keys = ['a key'];
  app.silent = true;
  app.use(middleware(app));
  app.use(async (ctx) => {
    const [, route, field] = ctx.path.split('/');
    ctx.status = 200;
    if (route === 'start') ctx.session.user = 1;
    if (route === 'set') {
      assert.equal(ctx.session.user, 1);
      await gate.pass();
      ctx.session[field] = 1;
    }
    if (route === 'sign-out') ctx.session = null;
    if (route === 'fields') ctx.body = Object.keys(ctx.session.toJSON()).join(' ');
  });
  const server = app.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const send = async (path, cookie = '') => {
    const url = `http://127.0.0.1:${server.address().port}${path}`;
    const response = await fetch(url, { headers: { cookie } });
    const cookies = response.headers.getSetCookie().map((line) => line.split(';')[0]).join('; ');
    return { status: response.status, cookies, body: await response.text() };
  };
  return { send, stop: () => server.close() };
}

test('of two changes at once the last is kept', async () => {
  const gate = new Gate(2);
  const { send, stop } = await start(gate);
  const { cookies } = await send('/start');
  const changes = [send('/set/a', cookies), send('/set/b', cookies)];
  await gate.loaded;
  gate.open();
  for (const { status } of await Promise.all(changes)) assert.equal(status, 200);
  assert.match((await send('/fields', cookies)).body, /^user [ab]$/);
  stop();
});

test('a request in flight brings an ended session back', async () => {
  const gate = new Gate(1);
  const { send, stop } = await start(gate);
  const { cookies } = await send('/start');
  const change = send('/set/a', cookies);
  await gate.loaded;
  assert.equal((await send('/sign-out', cookies)).status, 200);
  gate.open();
  assert.equal((await change).status, 200);
  assert.equal((await send('/fields', cookies)).body, 'user a');
  stop();
});

test('a missing middleware is found by the first request', async () => {
  const { send, stop } = await start(new Gate(1), () => (ctx, next) => next());
  assert.equal((await send('/start')).status, 500);
  stop();
});
