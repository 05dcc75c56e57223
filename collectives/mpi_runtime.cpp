#include "collectives/mpi_runtime.h"

#define OMPI_SKIP_MPICXX 1
#include <fmt/format.h>
#include <mpi.h>

#include <exception>
#include <string>

#include "runtime/core/error.h"

namespace annulus {

MpiRuntime::MpiRuntime() : exceptions_(std::uncaught_exceptions()) {
  int provided = MPI_THREAD_SINGLE;
  MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided);
  if (provided < MPI_THREAD_SERIALIZED) {
    const std::string library = library_version();
    MPI_Finalize();
    throw ConfigError(
        fmt::format("{} gives thread level {}, which does not let a communication thread call it (level {} is needed); "
                    "use an MPI built with thread support",
                    library, provided, int{MPI_THREAD_SERIALIZED}));
  }
}

MpiRuntime::~MpiRuntime() {
  if (std::uncaught_exceptions() > exceptions_) MPI_Abort(MPI_COMM_WORLD, 1);
  MPI_Finalize();
}

int MpiRuntime::rank() const {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}

int MpiRuntime::size() const {
  int size = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  return size;
}

std::string MpiRuntime::host() const {
  char name[MPI_MAX_PROCESSOR_NAME] = {};
  int length = 0;
  MPI_Get_processor_name(name, &length);
  return {name, static_cast<std::size_t>(length)};
}

std::string MpiRuntime::library_version() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = {};
  int length = 0;
  MPI_Get_library_version(text, &length);
  const std::string whole(text, static_cast<std::size_t>(length));
  return whole.substr(0, whole.find_first_of("\n,"));
}

std::string MpiRuntime::standard_version() const {
  int major = 0;
  int minor = 0;
  MPI_Get_version(&major, &minor);
  return fmt::format("{}.{}", major, minor);
}

void MpiRuntime::end_job(int code) const {
  MPI_Abort(MPI_COMM_WORLD, code);
  throw InternalError("MPI_Abort has returned");
}

}  // namespace annulus
