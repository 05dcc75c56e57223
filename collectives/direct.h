#pragma once

#include <span>

#include "collectives/request.h"

namespace annulus {

/// A collective whose buffers one process can all reach: `requests` of all ranks, by rank, with addresses of this
/// process. Its work falls into as many parts as there are ranks, each of `part_elements`, which touch disjoint memory:
/// any rank may do any elements of any part, once. (A message is one part of two requests: sender's, receiver's.)
std::int64_t part_elements(const Request& request, int size, int part);
void perform(std::span<const Request> requests, int part, std::int64_t begin, std::int64_t count);

}  // namespace annulus
