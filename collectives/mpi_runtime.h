#pragma once

#include <string>

namespace annulus {

/// MPI from its start to its end: one in a process, made in main(), and used from one thread at a time. Where an
/// exception unwinds past it, the other ranks may be waiting for this one: the whole job is aborted rather than
/// finalized.
class MpiRuntime {
 public:
  /// Throws ConfigError where the library cannot be called from a thread other than the main one.
  MpiRuntime();
  MpiRuntime(const MpiRuntime&) = delete;
  MpiRuntime& operator=(const MpiRuntime&) = delete;
  ~MpiRuntime();

  int rank() const;
  int size() const;
  std::string host() const;
  static std::string library_version();  ///< as the library names itself, its first line; also before the start
  std::string standard_version() const;  ///< of the MPI standard, "3.1"

  /// Ends all ranks of the job with this exit code. From any thread.
  [[noreturn]] void end_job(int code) const;

 private:
  const int exceptions_;  // under way when this was made
};

}  // namespace annulus
