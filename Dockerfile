# The image of mcp-sidecar: docker build -t mcp-sidecar .
#
# The tag below moves with the security releases of Node 24. For a build that is the same every time, look its digest
# up and give both:
#   docker buildx imagetools inspect node:24-bookworm-slim
#   docker build --build-arg NODE_IMAGE=node:24-bookworm-slim@sha256:... -t mcp-sidecar .
ARG NODE_IMAGE=node:24-bookworm-slim

FROM ${NODE_IMAGE} AS build
# For the launcher, the program that confines the wrapped server. It is static, so that it runs in any image.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
# Lifecycle scripts stay off: `prepare` would compile sources that are not here yet, and no dependency needs one.
RUN npm ci --ignore-scripts
COPY tsconfig.json tsconfig.build.json ./
COPY bin bin
COPY scripts scripts
COPY src src
# Without the launcher the build succeeds, as it must where nobody has a compiler; an image that cannot confine is none.
RUN npm run build \
 && rm -f dist/launcher/*-test* dist/launcher/*.sources \
 && test -x dist/launcher/mcp-sidecar-launcher

# A stage of its own, so that a change of the sources leaves the layer with the dependencies as it was.
FROM ${NODE_IMAGE} AS dependencies
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci --ignore-scripts --omit=dev

FROM ${NODE_IMAGE}
# tini is PID 1. When the sidecar kills a server's process group, or a server's own children outlive it, the orphans
# are handed to PID 1; node reaps only what it spawned itself, so they would stay as zombies until the pids run out.
# The uid has a name because programs ask for it: os.userInfo() throws where there is none.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends tini \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 65532 sidecar \
 && useradd --uid 65532 --gid 65532 --key UID_MAX=65532 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin sidecar

WORKDIR /app
COPY package.json LICENSE entrypoint.sh ./
COPY --from=dependencies /app/node_modules node_modules
COPY --from=build /app/dist dist

# Only /tmp is written to, and only by the wrapped server: npx keeps its cache under HOME. With a read-only root give
# it a tmpfs from which programs may run (docker's default is noexec): --read-only --tmpfs /tmp:exec
# The server starts in /tmp, too: in /app, npx would find the sidecar's own dependencies before what it was asked for.
ENV HOME=/tmp
WORKDIR /tmp
USER 65532:65532

# 8080 is for clients; 9090 has /healthz, /readyz and /metrics.
EXPOSE 8080 9090

# Whether the sidecar itself lives; to wait until the wrapped server answers as well, ask /readyz. An admin port other
# than 9090 is found here only if it is given as a variable.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s \
  CMD ["node", "-e", "require('node:http').get({ host: '127.0.0.1', port: process.env.MCP_SIDECAR_ADMIN_PORT || 9090, path: '/healthz' }, (r) => process.exit(r.statusCode === 200 ? 0 : 1)).on('error', () => process.exit(1))"]

ENTRYPOINT ["/app/entrypoint.sh"]
