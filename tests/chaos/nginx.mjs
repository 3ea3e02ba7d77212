// Debian's nginx in front of the bridges, with common settings.
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePorts } from '../e2e/processes.mjs';

const HOST = '127.0.0.1';
const READY_MS = 60_000;

// As deploy/README.md documents it.
const DOCUMENTED = `
  proxy_http_version 1.1;
  proxy_set_header Connection $connection_upgrade;
  proxy_set_header Upgrade $http_upgrade;
  proxy_set_header Host $http_host;
  proxy_buffering off;
  proxy_read_timeout 1h;
  proxy_send_timeout 1h;`;

const SETTINGS = {
  // Debian's defaults, plus what a WebSocket needs.
  plain: { ws: 'proxy_http_version 1.1; proxy_set_header Connection upgrade; proxy_set_header Upgrade $http_upgrade;' },
  // Ignores the bridge's header that turns buffering off.
  buffering: {
    all: 'proxy_ignore_headers X-Accel-Buffering; proxy_buffering on;' +
      'gzip on; gzip_proxied any; gzip_types text/event-stream;',
    ws: 'proxy_http_version 1.1; proxy_set_header Connection upgrade; proxy_set_header Upgrade $http_upgrade;',
  },
  documented: { all: DOCUMENTED },
  http2: { all: DOCUMENTED, tls: true },
  // Cuts a stream that is silent for 3 s, instead of the usual 60 s.
  impatient: { all: `${DOCUMENTED}`.replaceAll('1h', '3s') },
};

function configOf(dir, ports, sse, ws) {
  const servers = Object.entries(SETTINGS).map(([name, { all = '', ws: wsOnly = '', tls }]) => `
    server {
      listen ${HOST}:${ports[name]}${tls ? ' ssl http2' : ''};
      ${tls ? `ssl_certificate ${dir}/cert.pem; ssl_certificate_key ${dir}/key.pem;` : ''}
      ${all}
      location / { proxy_pass http://${sse}; }
      location /v1/ws { ${wsOnly} proxy_pass http://${ws}; }
    }`).join('');
  return `
    pid ${dir}/pid; error_log ${dir}/error.log; worker_processes 1; daemon off;
    events { worker_connections 2048; }
    http {
      access_log off;
      client_body_temp_path ${dir}/body; proxy_temp_path ${dir}/proxy;
      fastcgi_temp_path ${dir}/fastcgi; uwsgi_temp_path ${dir}/uwsgi; scgi_temp_path ${dir}/scgi;
      map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
      ${servers}
    }`;
}

async function listens(port) {
  const socket = net.connect(port, HOST);
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

/** Starts nginx in front of one bridge of each kind. `at[name]`: {url, wsUrl} of each of the SETTINGS. */
export async function startNginx({ sse, ws }) {
  const dir = mkdtempSync(join(tmpdir(), 'runnel-nginx-'));
  const names = Object.keys(SETTINGS);
  const free = await freePorts(names.length);
  const ports = Object.fromEntries(names.map((name, i) => [name, free[i]]));
  execFileSync('openssl', [
    'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '1', '-subj', `/CN=${HOST}`,
    '-addext', `subjectAltName=IP:${HOST}`, '-keyout', join(dir, 'key.pem'), '-out', join(dir, 'cert.pem'),
  ], { stdio: 'ignore' });
  writeFileSync(join(dir, 'nginx.conf'), configOf(dir, ports, sse.address, ws.address));
  // Workers run as the user who starts nginx, so that they can read this folder.
  const user = process.getuid() === 0 ? ['-g', 'user root;'] : [];
  const child = spawn('/usr/sbin/nginx', ['-p', dir, '-c', join(dir, 'nginx.conf'), ...user], { stdio: 'inherit' });
  process.on('exit', () => child.kill('SIGTERM'));
  const deadline = Date.now() + READY_MS;
  for (const port of free) {
    while (!(await listens(port))) {
      if (child.exitCode !== null || Date.now() > deadline) throw new Error(`nginx did not start, see ${dir}/error.log`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
  const at = Object.fromEntries(names.map((name) => [name, {
    url: `http${SETTINGS[name].tls ? 's' : ''}://${HOST}:${ports[name]}`,
    wsUrl: `ws${SETTINGS[name].tls ? 's' : ''}://${HOST}:${ports[name]}/v1/ws`,
  }]));
  return {
    at, names,
    async stop() {
      const gone = once(child, 'exit');
      child.kill('SIGTERM');
      await gone;
    },
  };
}
