#include "collectives/watchdog.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "collectives/rank_state.h"
#include "collectives/thread_communicator.h"

namespace annulus {
namespace {

constexpr int kTold = 7;  // the exit code of a process whose on_failure was called

void sleep_seconds(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

/// Memory that the test and its processes share.
struct Board {
  std::atomic<int> address_known;
  char address[1024];
  struct Rank {
    std::atomic<int> ready;
    char message[2048];
  } ranks[8];
  std::atomic<int> go;
};

/// Real processes, each with a watchdog: `body` runs on each, with the watchdog connected.
class Processes {
 public:
  using Body = std::function<void(int rank, Watchdog& watchdog)>;

  Processes(int size, const WatchdogOptions& options, const Body& body) {
    void* memory = mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    board_ = new (memory) Board{};
    for (int rank = 0; rank < size; ++rank) {
      pids_.push_back(fork());
      if (pids_.back() == 0) _exit(child(rank, size, options, body));
    }
  }
  Processes(const Processes&) = delete;
  Processes& operator=(const Processes&) = delete;
  ~Processes() {
    for (const pid_t pid : pids_) {
      if (pid > 0) {
        kill(pid, SIGKILL);
        waitpid(pid, nullptr, 0);
      }
    }
    munmap(board_, sizeof(Board));
  }

  /// Waits until all have connected.
  void await_ready() const {
    for (std::size_t rank = 0; rank < pids_.size(); ++rank) {
      while (board_->ranks[rank].ready == 0) sleep_seconds(0.005);
    }
  }
  /// Lets the bodies begin, once all have connected: a rank that failed before would leave others without a world.
  void go() const {
    await_ready();
    board_->go = 1;
  }
  void send_signal(int rank, int number) const { kill(pids_[rank], number); }

  /// The exit code of a rank, or minus the signal that ended it.
  int exit_code(int rank) {
    int status = 0;
    waitpid(pids_[rank], &status, 0);
    pids_[rank] = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  std::string message(int rank) const { return board_->ranks[rank].message; }

  /// All of `ranks` were told a message that holds each of `parts`.
  void expect_told(const std::vector<int>& ranks, const std::vector<std::string>& parts) {
    for (const int rank : ranks) {
      EXPECT_EQ(exit_code(rank), kTold) << "rank " << rank;
      for (const std::string& part : parts) {
        EXPECT_NE(message(rank).find(part), std::string::npos)
            << "rank " << rank << " was told '" << message(rank) << "', without '" << part << "'";
      }
    }
  }

 private:
  int child(int rank, int size, const WatchdogOptions& options, const Body& body) {
    const auto exchange = [&](const std::string& own) -> std::string {
      if (rank == 0) {
        std::strncpy(board_->address, own.c_str(), sizeof board_->address - 1);
        board_->address_known = 1;
      }
      while (board_->address_known == 0) sleep_seconds(0.001);
      return board_->address;
    };
    const auto on_failure = [&](const std::string& message) {
      std::strncpy(board_->ranks[rank].message, message.c_str(), sizeof board_->ranks[rank].message - 1);
      _exit(kTold);
    };
    try {
      Watchdog watchdog(rank, size, exchange, on_failure, options);
      board_->ranks[rank].ready = 1;
      while (board_->go == 0) sleep_seconds(0.001);
      body(rank, watchdog);
    } catch (const std::exception&) {
      return 3;
    }
    return 0;
  }

  Board* board_;
  std::vector<pid_t> pids_;
};

const WatchdogOptions kQuick{
    .heartbeat_seconds = 0.1, .silence_seconds = 2.5, .least_deadline_seconds = 0.5, .connect_seconds = 30};

void stay(int, Watchdog&) { sleep_seconds(60); }

class Killed : public testing::TestWithParam<int> {};

TEST_P(Killed, IsNamedToAllOthers) {
  const int victim = GetParam();
  Processes processes(4, kQuick, [](int rank, Watchdog& watchdog) {
    watchdog.begin(41, "all_gather layers.1 over tp", 60);
    stay(rank, watchdog);
  });
  processes.go();
  sleep_seconds(0.4);
  processes.send_signal(victim, SIGKILL);
  std::vector<int> others;
  for (int rank = 0; rank < 4; ++rank) {
    if (rank != victim) others.push_back(rank);
  }
  std::vector<std::string> parts = {"rank " + std::to_string(victim) + " died"};
  if (victim > 0) parts.push_back("in all_gather layers.1 over tp (operation 41)");
  processes.expect_told(others, parts);
}

INSTANTIATE_TEST_SUITE_P(, Killed, testing::Values(0, 1, 3));

TEST(Watchdog, AnExitWithoutGoodbyeIsNamed) {
  Processes processes(3, kQuick, [](int rank, Watchdog& watchdog) {
    if (rank == 2) _exit(0);
    stay(rank, watchdog);
  });
  processes.go();
  processes.expect_told({0, 1}, {"rank 2 died"});
}

TEST(Watchdog, AnExceptionLeavesWithoutGoodbye) {
  Processes processes(3, kQuick, [](int rank, Watchdog& watchdog) {
    if (rank == 1) throw std::runtime_error("unhandled");
    stay(rank, watchdog);
  });
  processes.go();
  EXPECT_EQ(processes.exit_code(1), 3);
  processes.expect_told({0, 2}, {"rank 1 died"});
}

TEST(Watchdog, AReportIsPassedOn) {
  for (const int failing : {0, 2}) {
    Processes processes(3, kQuick, [failing](int rank, Watchdog& watchdog) {
      if (rank == failing) {
        watchdog.report("loss is not finite");
        _exit(4);
      }
      stay(rank, watchdog);
    });
    processes.go();
    EXPECT_EQ(processes.exit_code(failing), 4);
    processes.expect_told({1, 2 - failing}, {"rank " + std::to_string(failing) + " failed: loss is not finite"});
  }
}

TEST(Watchdog, AStoppedProcessIsNamed) {
  Processes jobs[2] = {{3, kQuick, stay}, {3, kQuick, stay}};  // at the same time, for they take a while
  for (const int victim : {0, 1}) {
    jobs[victim].go();
    jobs[victim].send_signal(victim, SIGSTOP);
  }
  for (const int victim : {0, 1}) {
    jobs[victim].expect_told({1 - victim, 2}, {"rank " + std::to_string(victim) + " has sent no heartbeat for"});
  }
}

TEST(Watchdog, RanksThatFallSilentTogetherAreNamedTogether) {
  Processes processes(4, kQuick, stay);
  processes.go();
  processes.send_signal(1, SIGSTOP);
  processes.send_signal(3, SIGSTOP);
  processes.expect_told({0, 2}, {"has sent no heartbeat for", "nor has rank", "rank 1", "rank 3"});
}

TEST(Watchdog, AHangNamesTheOperationAndWhoIsLate) {
  Processes processes(4, kQuick, [](int rank, Watchdog& watchdog) {
    watchdog.begin(1, "matmul layers.0.mlp", 0.1);
    if (rank != 2) {
      watchdog.end();
      watchdog.begin(2, "all_reduce layers.0.mlp over {tp, cp}", 0.7);
    }
    stay(rank, watchdog);
  });
  processes.go();
  processes.expect_told({0, 1, 2, 3}, {"has not ended", "late: rank 2 in matmul layers.0.mlp (operation 1)"});
}

TEST(Watchdog, DeadlinesBelowTheLeastAreRaised) {
  WatchdogOptions options = kQuick;
  options.least_deadline_seconds = 30;
  Processes processes(2, options, [](int, Watchdog& watchdog) {
    watchdog.begin(1, "slow", 0.01);
    sleep_seconds(0.8);
    watchdog.end();
  });
  processes.go();
  for (const int rank : {0, 1}) EXPECT_EQ(processes.exit_code(rank), 0) << processes.message(rank);
}

TEST(Watchdog, ACleanEndAtDifferentTimesIsNoFailure) {
  const auto leaving_first = [](int first) {
    return [first](int rank, Watchdog& watchdog) {
      for (std::uint64_t i = 1; i < 200000; ++i) {
        watchdog.begin(i, "quick", 0.5);
        watchdog.end();
      }
      if (rank != first) sleep_seconds(rank * 1.0);  // longer than silence_seconds for some
    };
  };
  Processes jobs[2] = {{4, kQuick, leaving_first(0)}, {4, kQuick, leaving_first(3)}};
  for (Processes& job : jobs) job.go();
  for (Processes& job : jobs) {
    for (int rank = 0; rank < 4; ++rank) EXPECT_EQ(job.exit_code(rank), 0) << job.message(rank);
  }
}

TEST(Watchdog, AnImmediateEndIsNoFailure) {
  for (int i = 0; i < 10; ++i) {
    Processes processes(5, kQuick, [](int, Watchdog&) {});
    processes.go();
    for (int rank = 0; rank < 5; ++rank) EXPECT_EQ(processes.exit_code(rank), 0) << processes.message(rank);
  }
}

TEST(Watchdog, ConnectsOverACommunicator) {
  run_ranks(3, [](Communicator& world) {
    std::atomic<int> failures{0};
    {
      Watchdog watchdog(world.rank(), world.size(), exchange_over(world), [&](const std::string&) { ++failures; });
      watchdog.begin(1, "step", 60);
    }
    EXPECT_EQ(failures, 0);
  });
}

TEST(Watchdog, OneRankAloneHasDeadlines) {
  std::atomic<bool> told{false};
  std::string message;
  Watchdog watchdog(
      0, 1, [](const std::string& own) { return own; },
      [&](const std::string& text) {
        message = text;
        told = true;
      },
      kQuick);
  watchdog.begin(9, "matmul head", 0.1);
  while (!told) sleep_seconds(0.01);
  EXPECT_NE(message.find("matmul head (operation 9) has not ended on rank 0"), std::string::npos) << message;
  EXPECT_NE(message.find("none is late"), std::string::npos) << message;
}

TEST(RankState, SurvivesTheWire) {
  const RankState state{77, true, true, 1.5, 60, "send k over cp"};
  const std::optional<RankState> back = decoded(encoded(state));
  ASSERT_TRUE(back);
  EXPECT_EQ(describe(*back), "in send k over cp (operation 77) for 1.5 s");
  EXPECT_EQ(back->deadline_seconds, 60);
  EXPECT_FALSE(decoded("short"));
}

TEST(RankState, NamesAtMostEightLateRanks) {
  std::vector<RankState> states(12, {3, true, true, 2, 10, "a"});
  EXPECT_FALSE(overdue_rank(states));
  states[5] = {4, true, true, 11, 10, "b"};
  ASSERT_EQ(overdue_rank(states), 5);
  const std::string text = explain_hang(states, 5);
  EXPECT_NE(text.find("rank 8"), std::string::npos) << text;
  EXPECT_EQ(text.find("rank 9"), std::string::npos) << text;
  EXPECT_NE(text.find("and 3 more"), std::string::npos) << text;
}

}  // namespace
}  // namespace annulus
