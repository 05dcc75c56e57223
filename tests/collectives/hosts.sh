#!/bin/bash
# Runs COMMAND by mpirun on hosts that are network namespaces of this machine, with an address, a link and a host name each:
#   tests/collectives/hosts.sh [--hosts N] [--ranks RANKS_PER_HOST] [--rate 1gbit] COMMAND...
# Needs root, iproute2 and Open MPI; says so and ends with 77 (skipped) where it cannot.
set -euo pipefail
hosts=2 ranks=2 rate=
while [[ ${1-} == --* ]]; do
  case $1 in
    --hosts) hosts=$2 ;;
    --ranks) ranks=$2 ;;
    --rate) rate=$2 ;;
    *) sed -n 2,4p "$0"; exit 2 ;;
  esac
  shift 2
done
skip() { echo "skipped: $1"; exit 77; }
[ "$(id -u)" -eq 0 ] || skip "hosts of network namespaces need root"
for tool in ip tc unshare mpirun; do command -v "$tool" > /dev/null || skip "$tool is not installed"; done

source "$(dirname "$0")/../../launch/mpi_environment.sh"
export OMPI_MCA_mpi_yield_when_idle=1  # hosts share this machine's cores
prefix=collectives-$$ subnet=10.$((RANDOM % 200 + 20)).$((RANDOM % 250)) folder=$(mktemp -d)
remove() {
  for ((host = 0; host <= hosts; ++host)); do
    ip netns pids "$prefix-$host" 2> /dev/null | xargs -r kill -9 2> /dev/null || true
    ip netns delete "$prefix-$host" 2> /dev/null || true
  done
  rm -rf "$folder"
}
trap remove EXIT
ip netns add "$prefix-0" 2> /dev/null || skip "network namespaces are not allowed here"

# Namespace 0 is where mpirun runs, and the switch between the hosts.
ip -n "$prefix-0" link add switch type bridge
ip -n "$prefix-0" address add "$subnet.254/24" dev switch
ip -n "$prefix-0" link set switch up
ip -n "$prefix-0" link set lo up
for ((host = 1; host <= hosts; ++host)); do
  ip netns add "$prefix-$host"
  ip -n "$prefix-0" link add "port$host" type veth peer name net0 netns "$prefix-$host"
  ip -n "$prefix-0" link set "port$host" master switch up
  ip -n "$prefix-$host" address add "$subnet.$host/24" dev net0
  ip -n "$prefix-$host" link set net0 up
  ip -n "$prefix-$host" link set lo up
  [ -z "$rate" ] || tc -n "$prefix-$host" qdisc add dev net0 root tbf rate "$rate" burst 512kb latency 100ms
  echo "$subnet.$host slots=$ranks" >> "$folder/hosts"
done
# How mpirun starts its daemon on a host.
cat > "$folder/start" <<END
#!/bin/bash
number=\${1##*.}
shift
exec ip netns exec "$prefix-\$number" unshare --uts sh -c "hostname $prefix-\$number; exec sh -c '\$*'"
END
chmod +x "$folder/start"
ip netns exec "$prefix-0" mpirun -n $((hosts * ranks)) --hostfile "$folder/hosts" --mca plm_rsh_agent "$folder/start" \
  --mca plm_rsh_no_tree_spawn 1 --mca oob_tcp_if_include "$subnet.0/24" --mca btl_tcp_if_include "$subnet.0/24" \
  --mca btl self,vader,tcp --mca pml ob1 "$@"
