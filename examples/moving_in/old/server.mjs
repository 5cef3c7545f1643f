// The old application: koa with koa-session, on the port in PORT.
import Koa from 'koa';
import { createSession } from 'koa-session';

const app = new Koa();
app.keys = process.env.OLD_KEYS.split(',');
app.use(createSession({ key: 'koa.sess', maxAge: 24 * 60 * 60 * 1000 }, app));
app.use((ctx) => {
  const [, action, name] = ctx.path.split('/');
  if (ctx.method === 'POST' && action === 'sign-in') ctx.session.user = { name };
  if (ctx.method === 'POST' && action === 'sign-out') ctx.session = null;
  const user = ctx.session?.user;
  ctx.body = user ? `hello ${user.name}, says the old application\n` : 'hello stranger, says the old application\n';
});
const server = app.listen(Number(process.env.PORT ?? 3001), '127.0.0.1', () => {
  console.log(`the old application listens on http://127.0.0.1:${server.address().port}`);
});
