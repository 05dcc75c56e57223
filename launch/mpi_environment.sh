# Sourced by scripts that start mpirun: lets it run as root (containers, CI) and put more ranks on a machine than it has cores.
if [ "$(id -u)" -eq 0 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
export OMPI_MCA_rmaps_base_oversubscribe=1                        # Open MPI 4
export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe       # Open MPI 5
