#!/usr/bin/env bash
# make demo-ha: four blank machines become a cluster with three control planes.
# The one that leads etcd loses its power, and the cluster does not mind.
# The lab stays up afterwards, until `slipway lab down demo-ha`.
set -euo pipefail
cd "$(dirname "$0")/../.."

slipway=$PWD/.build/bin/slipway
lab=demo-ha
address=10.77.0.50 # for people: one healthy control plane holds it

say() { printf '\n== %s\n' "$*"; }
kubectl() { "$slipway" lab kubectl $lab -- "$@"; }
cli() { printf '$ slipway %s\n' "$*"; "$slipway" lab exec $lab -- "$slipway" "$@"; }

"$slipway" lab down $lab >/dev/null 2>&1 || true

say "Power on: the boot service and four blank machines, in a network with no way out"
"$slipway" lab up $lab --machines 4 --memory 2048

say "One cluster out of them"
cli cluster create demo --control-planes 3 --workers 1 --virtual-ip $address --yes
cli etcd members
kubectl get nodes -o wide

say "The control plane that leads etcd loses its power"
leader=$("$slipway" lab exec $lab -- "$slipway" etcd members | awk '$3 == "yes" {print $1; exit}')
machine=$("$slipway" lab exec $lab -- "$slipway" machines list | awk -v host="$leader" '$0 ~ host {print $1; exit}')
guest=$("$slipway" lab status $lab | awk -v mac="${machine//-/:}" '$0 ~ mac {print $1; exit}')
echo "$leader is machine $machine, $guest in the lab"
"$slipway" lab power $lab "$guest" off
began=$SECONDS
until kubectl create configmap written-after --from-literal=by=demo --request-timeout=5s 2>/dev/null; do
	((SECONDS - began < 120)) || { echo "the API did not come back within 120 s" >&2; exit 1; }
done
echo "the API at $address took a write $((SECONDS - began)) s after that"
cli etcd members
cli cluster status demo

cat <<END

The lab stays up. Try:
  .build/bin/slipway lab exec $lab -- .build/bin/slipway etcd status
  .build/bin/slipway lab power $lab $guest on     # it comes back as a blank machine, and joins again
  .build/bin/slipway lab down $lab
END
