#include "launch/rank_device.h"

#include <gtest/gtest.h>

#include "runtime/core/error.h"
#include "runtime/cpu/device.h"

namespace annulus {
namespace {

/// Notes what it is asked for.
class NotingDevice final : public RankDevice {
 public:
  explicit NotingDevice(std::int64_t room) : room_(room) {}
  Device& device() override { return device_; }
  Communicator& world() override { throw InternalError("a device of no world"); }
  std::unique_ptr<Device> another() override { return nullptr; }
  int threads() const override { return 1; }
  std::string processor() const override { return "nothing"; }
  ExecutorOptions executor_options() override { return {}; }
  std::int64_t taken_by_libraries() override { return 0; }
  bool abort_collectives() override { return false; }

  std::string asked_for;

 private:
  void check_memory(const MemoryNeed& need, std::int64_t device_reserve_bytes) override {
    asked_for += "memory ";
    if (need.arena_bytes + device_reserve_bytes > room_) throw ConfigError("too little memory");
  }
  std::string choose_products(const std::vector<const Program*>& programs) override {
    asked_for += "products";
    return std::to_string(programs.size());
  }

  std::int64_t room_;
  CpuDevice device_{1};
};

TEST(RankDevice, NothingIsChosenBeforeTheMemoryIsKnownToSuffice) {
  const Program program(MeshAxes{});
  const MemoryNeed need{.arena_bytes = 7, .table = ""};
  NotingDevice large(10), small(9);
  EXPECT_EQ(large.make_ready(need, 3, {&program, &program}), "2");
  EXPECT_EQ(large.asked_for, "memory products");
  EXPECT_THROW(small.make_ready(need, 3, {&program}), ConfigError);
  EXPECT_EQ(small.asked_for, "memory ");
}

}  // namespace
}  // namespace annulus
