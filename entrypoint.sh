#!/bin/sh
# What follows the image's name, and what it becomes:
#   npx -y some-server                             a command: it is wrapped
#   --auth none --permissions none -- some-server  flags: they go to mcp-sidecar as they are
#   validate --config FILE                         a subcommand: likewise
#   (nothing)                                      MCP_SIDECAR_COMMAND or MCP_SIDECAR_CONFIG says what to run
set -eu

if [ $# -eq 0 ] && [ -z "${MCP_SIDECAR_COMMAND-}${MCP_SIDECAR_CONFIG-}" ]; then
  cat >&2 <<'END'
mcp-sidecar: no command given. Say which MCP server to wrap, in one of these ways:
  docker run IMAGE --auth none --permissions full-access -- npx -y @modelcontextprotocol/server-everything
  docker run IMAGE npx -y @modelcontextprotocol/server-everything
  MCP_SIDECAR_COMMAND='["npx", "-y", "@modelcontextprotocol/server-everything"]'
  MCP_SIDECAR_CONFIG=/etc/mcp-sidecar/config.yaml
In all but the first, MCP_SIDECAR_BEARER_TOKEN_FILE or the file says who may come in, and MCP_SIDECAR_PERMISSIONS or the
file what the server may touch.
END
  exit 64 # EX_USAGE of sysexits.h
fi

case ${1-} in
  '' | -* | run | validate | doctor | learn | schema | errors | hash | audit | help) ;;
  *) set -- -- "$@" ;;
esac

file=${MCP_SIDECAR_CONFIG-}
for argument in "$@"; do
  case $argument in
    --) break ;;
    --config | --config=*) file=given ;;
  esac
done

# Not for doctor, which listens nowhere, starts nothing, and would only ask for an authentication and a profile.
if [ "${1-}" != doctor ]; then
  # What the server may touch is somebody's choice here, on a loopback address, too: the containers of a pod share it.
  export MCP_SIDECAR_REQUIRE_PERMISSIONS="${MCP_SIDECAR_REQUIRE_PERMISSIONS-true}"
  # Nobody reaches a loopback address from outside the container. Not beside a configuration file: a variable wins over
  # the file, and would open to the network what the file keeps on loopback.
  [ -n "$file" ] || export MCP_SIDECAR_HOST="${MCP_SIDECAR_HOST-0.0.0.0}"
fi

# -s: reap orphans even where another process is PID 1 (docker run --init, a shared process namespace).
exec tini -s -- node /app/dist/bin/mcp-sidecar.js "$@"
