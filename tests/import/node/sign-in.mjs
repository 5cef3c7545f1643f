// Signs visitors in with a real library of the other side: one JSON object for each line of the input, with the data
// of a session. Prints for each the Cookie header that its browser sends from then on.
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
// What the visitor of the current request signs in with.
let data;

// egg 3 runs the koa-session that egg-session brings, egg 4 the newest.
const eggSession = createRequire(createRequire(import.meta.url).resolve('egg-session/package.json'));

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
    ctx.session = data;
    ctx.status = 200;
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
    res.end();
  });
  return app;
}

let redis;
const applications = {
  koa: () => koa({}),
  'egg-3': () => koa(egg, eggSession('koa-session'), EggCookies),
  'egg-3-signed': () => koa(eggSigned, eggSession('koa-session'), EggCookies),
  'egg-4': () => koa(egg, createSession, EggCookies4),
  'egg-4-signed': () => koa(eggSigned, createSession, EggCookies4),
  'cookie-session': () => onExpress(cookieSession({ keys, maxAge: Number(maxAge) })),
  express: async () => {
    redis = await createClient({ url: redisUrl }).connect();
    const store = new RedisStore({ client: redis });
    const cookie = { maxAge: Number(maxAge) };
    return onExpress(expressSession({ store, secret: keys, resave: false, saveUninitialized: false, cookie }));
  },
};

const server = createServer(await applications[format]());
server.listen(0, '127.0.0.1');
await once(server, 'listening');
const url = `http://127.0.0.1:${server.address().port}/`;
for (const line of (await text(process.stdin)).split('\n').filter(Boolean)) {
  data = JSON.parse(line);
  const response = await fetch(url);
  assert.equal(response.status, 200);
  await response.text();
  const cookies = response.headers.getSetCookie().map((cookie) => cookie.split(';')[0]);
  assert.notEqual(cookies.length, 0);
  console.log(cookies.join('; '));
}
server.close();
server.closeAllConnections();
await redis?.close();
