// An identity provider on this machine: node provider.mjs '{"port": ..., "client": {...}, "people": {"name": claims}}'.
// It asks for no password: its sign-in page has a button for each of the people. Prints "up" once it answers.
import { Provider, interactionPolicy } from 'oidc-provider';

const { port, client, people } = JSON.parse(process.argv[2]);

// Streamlit asks the provider to let people select an account.
const policy = interactionPolicy.base();
policy.add(new interactionPolicy.Prompt({ name: 'select_account', requestable: true }), 0);

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [client],
  claims: { openid: ['sub'], email: ['email', 'email_verified'] },
  conformIdTokenClaims: false, // the ID token has the e-mail address, as with the large providers
  cookies: { keys: ['only for a test'] },
  features: {
    devInteractions: { enabled: false },
    rpInitiatedLogout: {
      logoutSource(ctx, form) {
        ctx.body = `${form}<button type="submit" form="op.logoutForm" name="logout" value="yes">Yes, sign me out</button>`;
      },
    },
  },
  interactions: { policy, url: (ctx, interaction) => `/interaction/${interaction.uid}` },
  findAccount: (ctx, id) => people[id] && { accountId: id, claims: () => ({ sub: id, ...people[id] }) },
  async loadExistingGrant(ctx) {
    const grant = new provider.Grant({ clientId: ctx.oidc.client.clientId, accountId: ctx.oidc.session.accountId });
    grant.addOIDCScope('openid email profile');
    await grant.save();
    return grant;
  },
});

provider.use(async (ctx, next) => {
  if (!ctx.path.startsWith('/interaction/')) return next();
  const { who } = ctx.query;
  if (who) {
    return provider.interactionFinished(ctx.req, ctx.res, { login: { accountId: who }, select_account: {} });
  }
  const buttons = Object.keys(people).map((name) => `<button name="who" value="${name}">${name}</button>`);
  ctx.type = 'html';
  ctx.body = `<h1>Who are you?</h1><form>${buttons.join('')}</form>`;
});

provider.listen(port, '127.0.0.1', () => console.log('up'));
