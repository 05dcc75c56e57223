#pragma once

#include <stdexcept>
#include <string>
#include <vector>

namespace annulus {

/// Anything Annulus throws. A message says what is wrong, why, and what to do:
/// `heads=10 cannot be split over tp=4 (10 % 4 = 2); use tp in {1, 2, 5, 10}`.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The user can fix it: a configuration, a command line, a file. Holds every problem found; exit code 2.
class ConfigError : public Error {
 public:
  explicit ConfigError(std::string problem);
  explicit ConfigError(std::vector<std::string> problems);
  const std::vector<std::string>& problems() const { return problems_; }

 private:
  std::vector<std::string> problems_;
};

/// Found while a program is built: sizes that do not fit or do not divide.
class ShapeError : public Error {
 public:
  using Error::Error;
};

/// Found while a program is built: a sharding that would compute something wrong.
class PlacementError : public Error {
 public:
  using Error::Error;
};

/// A device or its library failed.
class DeviceError : public Error {
 public:
  using Error::Error;
};

/// A collective failed; names op, axes, group, rank, peer and code.
class CollectiveError : public Error {
 public:
  using Error::Error;
};

/// A broken invariant of ours: a bug, never the user's doing.
class InternalError : public Error {
 public:
  using Error::Error;
};

}  // namespace annulus
