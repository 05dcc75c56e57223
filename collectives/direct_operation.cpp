#include <algorithm>
#include <new>

#include "collectives/direct.h"
#include "collectives/shared_window.h"

namespace annulus {
namespace {

constexpr std::int64_t kPieceBytes = 64 * 1024;  // what a rank claims at a time
constexpr int kPiecesAtOnce = 16;                // in one test of a transfer

/// Whether a part's result goes to other ranks than that of the part.
bool writes_to_others(CollectiveKind kind) {
  return kind == CollectiveKind::all_reduce || kind == CollectiveKind::reduce || kind == CollectiveKind::gather;
}

}  // namespace

struct DirectOperation::Post {
  PeerPlace send, receive;
  bool send_reachable = false, receive_reachable = false;
  alignas(64) std::atomic<std::int64_t> claimed{0};  // pieces of this rank's part
  alignas(64) std::atomic<std::int64_t> done{0};
};

DirectOperation::DirectOperation(const SharedWindow& window, const GroupMemory& memory, const Request& request,
                                 int rank, std::uint64_t round)
    : window_(window), memory_(memory), request_(request), rank_(rank), round_(round) {
  piece_ = kPieceBytes / size_of(request.dtype);
  static_assert(sizeof(Post) <= kLeastSlotBytes);
}

DirectOperation::Post& DirectOperation::post_of(int rank) const {
  return *std::launder(reinterpret_cast<Post*>(window_.slot(rank, round_)));
}

std::int64_t DirectOperation::pieces(int part) const {
  return (part_elements(request_, window_.ranks(), part) + piece_ - 1) / piece_;
}

bool DirectOperation::advance() {
  if (!posted_) {
    if (!window_.may_fill(rank_, round_)) return false;
    post();
  }
  if (requests_.empty()) {
    if (!window_.all_filled(round_)) return false;
    meet();
  }
  if (!refused_ && !work()) return false;
  window_.drained(rank_).store(round_ + 1, std::memory_order_release);
  return true;
}

void DirectOperation::post() {
  const Buffers buffers = buffers_of(request_, rank_, window_.ranks());
  Post& post = *new (window_.slot(rank_, round_)) Post;
  post.send = memory_.memory->place_of(buffers.send.begin, buffers.send.bytes);
  post.receive = memory_.memory->place_of(buffers.receive.begin, buffers.receive.bytes);
  post.send_reachable = post.send.region >= 0 || buffers.send.bytes == 0;
  post.receive_reachable = post.receive.region >= 0 || buffers.receive.bytes == 0;
  window_.filled(rank_).store(round_ + 1, std::memory_order_release);
  posted_ = true;
}

/// The requests of all ranks, with the addresses that this process has for their buffers.
void DirectOperation::meet() {
  for (int rank = 0; rank < window_.ranks(); ++rank) {
    const Post& post = post_of(rank);
    const int member = memory_.members[static_cast<std::size_t>(rank)];
    Request request = request_;
    request.send = memory_.memory->address(member, post.send);
    request.receive = memory_.memory->address(member, post.receive);
    requests_.push_back(request);
    reachable_.push_back(post.receive_reachable);
    refused_ = refused_ || !post.send_reachable || (!post.receive_reachable && writes_to_others(request_.kind));
  }
  requests_[static_cast<std::size_t>(rank_)] = request_;
}

/// Does pieces that nobody has claimed, of this rank's own part first; true where all are done.
bool DirectOperation::work() {
  const int size = window_.ranks();
  int taken = 0;
  for (int step = 0; step < size; ++step) {
    const int part = (rank_ + step) % size;
    if (part != rank_ && !reachable_[static_cast<std::size_t>(part)]) continue;  // its own rank's work
    Post& post = post_of(part);
    const std::int64_t count = pieces(part), elements = part_elements(request_, size, part);
    while (post.claimed.load(std::memory_order_relaxed) < count) {
      if (taken++ == kPiecesAtOnce) return false;
      const std::int64_t piece = post.claimed.fetch_add(1, std::memory_order_relaxed);
      if (piece >= count) break;
      perform(requests_, part, piece * piece_, std::min(piece_, elements - piece * piece_));
      post.done.fetch_add(1, std::memory_order_release);
    }
  }
  for (int part = 0; part < size; ++part)
    if (post_of(part).done.load(std::memory_order_acquire) < pieces(part)) return false;
  return true;
}

}  // namespace annulus
