#!/usr/bin/env bash
# Installs the real components that the interop tests run against (npm run setup).
#   setup.sh            installs what is missing, as root on Debian; elsewhere says what is missing and exits 1;
#                       does nothing when all is there
#   setup.sh --missing  prints the names of the components of which a part is missing, one a line
# No service is started, and the host's trust store stays as it is.
set -euo pipefail

# component, Debian package, and how to see that it is there: a command, a library or a file.
readonly COMPONENTS='
xrootd     xrootd-server             command:xrootd
xrootd     xrootd-server-plugins     library:libXrdHttpTPC-*.so
xrootd     xrootd-server-plugins     library:libXrdMacaroons-*.so
xrootd     xrootd-scitokens-plugins  library:libXrdAccSciTokens-*.so
xrootd     libxrdhttputils2          library:libXrdHttpUtils.so.2
xrootd     util-linux                command:setpriv
xrootd     mount                     command:mount
xrootd     ca-certificates           file:/etc/ssl/certs/ca-certificates.crt
davix      davix                     command:davix-get
gfal2      gfal2-util-scripts        command:gfal-copy
gfal2      python3-gfal2-util        file:/usr/lib/python3/dist-packages/gfal2_util
gfal2      gfal2-plugin-http         library:gfal2-plugins/libgfal_plugin_http.so
gfal2      gfal2-plugin-file         library:gfal2-plugins/libgfal_plugin_file.so
parallel   parallel                  command:parallel
rclone     rclone                    command:rclone
curl       curl                      command:curl
openssl    openssl                   command:openssl
postgresql postgresql                file:/usr/lib/postgresql/*/bin/initdb
prometheus prometheus                command:promtool
'
readonly POLICY=/usr/sbin/policy-rc.d

is_there() {
  local kind=${1%%:*} what=${1#*:} found
  case $kind in
    command) command -v "$what" >/dev/null ;;
    file) compgen -G "$what" >/dev/null ;;
    library)
      for found in /usr/lib/*-linux-gnu /usr/lib64 /usr/lib; do
        # shellcheck disable=SC2086 # the pattern is meant to expand
        if compgen -G "$found/$what" >/dev/null; then return 0; fi
      done
      return 1
      ;;
  esac
}

# Prints "component package" for each part that is missing.
list_missing() {
  local component package probe
  while read -r component package probe; do
    if [ -n "$component" ] && ! is_there "$probe"; then echo "$component $package"; fi
  done <<<"$COMPONENTS"
}

# Debian's own switch against starting services: its scripts ask policy-rc.d, and 101 means no.
forbid_services() {
  saved=$(mktemp -d)
  if [ -e "$POLICY" ]; then cp -a "$POLICY" "$saved/policy-rc.d"; fi
  trap allow_services EXIT
  printf '#!/bin/sh\nexit 101\n' >"$saved/forbid"
  install -m 0755 "$saved/forbid" "$POLICY"
}

allow_services() {
  if [ -e "$saved/policy-rc.d" ]; then cp -a "$saved/policy-rc.d" "$POLICY"; else rm -f "$POLICY"; fi
  rm -rf "$saved"
}

main() {
  local missing packages
  missing=$(list_missing)
  if [ "${1:-}" = --missing ]; then
    echo "$missing" | awk 'NF {print $1}' | sort -u
    return 0
  fi
  if [ -z "$missing" ]; then
    echo 'setup: all components are there'
    return 0
  fi
  mapfile -t packages < <(echo "$missing" | awk '{print $2}')
  if [ ! -e /etc/debian_version ] || [ "$(id -u)" -ne 0 ]; then
    echo "setup: missing (by the names of Debian's packages): ${packages[*]}" >&2
    echo 'setup: run it as root on Debian 12 or later, or install them yourself' >&2
    return 1
  fi
  echo "setup: installing ${packages[*]}"
  forbid_services
  export DEBIAN_FRONTEND=noninteractive
  apt-get update
  apt-get install --yes --no-install-recommends "${packages[@]}"
  missing=$(list_missing)
  if [ -n "$missing" ]; then
    echo "setup: still missing after the installation (component, package):" >&2
    echo "$missing" >&2
    return 1
  fi
  echo 'setup: done'
}

main "$@"
