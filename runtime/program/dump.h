#pragma once

#include <string>

#include "runtime/program/program.h"

namespace annulus {

/// The program as text, one op a line: outputs with their types, kind, attributes, inputs, scope.
std::string dump(const Program& program);

}  // namespace annulus
