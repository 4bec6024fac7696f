#!/usr/bin/env bash
# make demo: the product from end to end. A blank machine whose only boot
# device is the network becomes a Ready Kubernetes node that runs a workload.
# The lab stays up afterwards, until `slipway lab down demo`.
set -euo pipefail
cd "$(dirname "$0")/../.."

slipway=$PWD/.build/bin/slipway
lab=demo

say() { printf '\n== %s\n' "$*"; }
run() { printf '$ %s\n' "${*/$slipway/slipway}"; "$@"; }
kubectl() { "$slipway" lab kubectl $lab -- "$@"; }

"$slipway" lab down $lab >/dev/null 2>&1 || true

say "Power on: the boot service and one blank machine, in a network with no way out"
run "$slipway" lab up $lab --machine m1,pxe=plain # its network card has to be given a loader

say "One cluster out of it"
run "$slipway" lab exec $lab -- "$slipway" cluster create demo --control-planes 1 --yes

say "A workload"
kubectl apply -f test/demo/hello.yaml
kubectl rollout status deployment/hello --timeout=180s
kubectl wait --for=condition=Ready pod/client --timeout=120s

say "Its Service answers a third pod"
address=$(kubectl get service hello -o jsonpath='{.spec.clusterIP}')
for url in "http://$address/" http://hello.default.svc.cluster.local/; do
	printf '%-45s ' "$url"
	kubectl exec client -- busybox timeout 10 busybox wget -q -O - "$url" # this busybox has no wget -T
done

say "The cluster"
kubectl get nodes,pods -A -o wide

say "From power-on to Ready"
"$slipway" lab exec $lab -- "$slipway" machines timeline

cat <<END

The lab stays up. Try:
  .build/bin/slipway lab kubectl $lab -- get events -A
  .build/bin/slipway lab exec $lab -- .build/bin/slipway machines list
  .build/bin/slipway lab console $lab m1
  .build/bin/slipway lab down $lab
END
