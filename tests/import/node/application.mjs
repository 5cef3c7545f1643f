// An application with a real library of the other side. Each line of the input is a request, in JSON. With `data` it
// begins a session with these data, and the Cookie header that its browser sends from then on is printed. With `cookie`
// the data of the session that the library finds in it is printed, as JSON.
import assert from 'node:assert';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { text } from 'node:stream/consumers';
import { Cookies as EggCookies4 } from '@eggjs/cookies';
import { RedisStore } from 'connect-redis';
import cookieSession from 'cookie-session';
import EggCookies from 'egg-cookies';
import express from 'express';
import expressSession from 'express-session';
import Koa from 'koa';
import { createSession } from 'koa-session';
import { createClient } from 'redis';

const [format, keyList, maxAge, redisUrl] = process.argv.slice(2);
const keys = keyList.split(',');
const redis = redisUrl && (await createClient({ url: redisUrl }).connect());
// What the visitor of the current request signs in with.
let data;

// egg 3 runs the koa-session that egg-session brings, egg 4 the newest.
const eggSession = createRequire(createRequire(import.meta.url).resolve('egg-session/package.json'));

// The store in the readme of egg-session.
const store = {
  get: async (key) => JSON.parse(await redis.get(key)),
  set: (key, value, left) => redis.set(key, JSON.stringify(value), { PX: left > 0 ? left : 24 * 60 * 60 * 1000 }),
  destroy: (key) => redis.del(key),
};

/** An application with koa-session, and with the cookies of an egg. */
function koa(options, session = createSession, Cookies = null) {
  const app = new Koa();
  app.keys = keys;
  app.use((ctx, next) => {
    if (Cookies) ctx.cookies = new Cookies(ctx, app.keys, {});
    return next();
  });
  app.use(session({ maxAge: maxAge === 'session' ? 'session' : Number(maxAge), ...options }, app));
  app.use((ctx) => {
    if (data) ctx.session = data;
    ctx.body = JSON.stringify(ctx.session);
  });
  return app.callback();
}

const egg = { key: 'EGG_SESS', httpOnly: true, encrypt: true };
const eggSigned = { ...egg, encrypt: false, signed: true };

/** An application with a middleware that sets `req.session`. */
function onExpress(middleware) {
  const app = express();
  app.use(middleware);
  app.use((req, res) => {
    Object.assign(req.session, data);
    const { cookie, ...session } = req.session;
    res.end(JSON.stringify(session));
  });
  return app;
}

const applications = {
  koa: () => koa({}),
  'koa-store': () => koa({ store, prefix: 'shop:' }),
  'egg-3': () => koa(egg, eggSession('koa-session'), EggCookies),
  'egg-3-signed': () => koa(eggSigned, eggSession('koa-session'), EggCookies),
  'egg-3-store': () => koa({ ...egg, store }, eggSession('koa-session'), EggCookies),
  'egg-4': () => koa(egg, createSession, EggCookies4),
  'egg-4-signed': () => koa(eggSigned, createSession, EggCookies4),
  'egg-4-signed-store': () => koa({ ...eggSigned, store }, createSession, EggCookies4),
  'cookie-session': () => onExpress(cookieSession({ keys, maxAge: Number(maxAge) })),
  express: () => {
    const cookie = { maxAge: Number(maxAge) };
    const rows = new RedisStore({ client: redis });
    return onExpress(expressSession({ store: rows, secret: keys, resave: false, saveUninitialized: false, cookie }));
  },
};

const server = createServer(applications[format]());
server.listen(0, '127.0.0.1');
await once(server, 'listening');
const url = `http://127.0.0.1:${server.address().port}/`;
for (const line of (await text(process.stdin)).split('\n').filter(Boolean)) {
  const request = JSON.parse(line);
  data = request.data;
  const response = await fetch(url, { headers: data ? {} : { cookie: request.cookie } });
  assert.equal(response.status, 200);
  const body = await response.text();
  const cookies = response.headers.getSetCookie().map((cookie) => cookie.split(';')[0]);
  if (data) assert.notEqual(cookies.length, 0);
  console.log(data ? cookies.join('; ') : body);
}
server.close();
server.closeAllConnections();
await redis?.close();
