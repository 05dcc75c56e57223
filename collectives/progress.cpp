#include "collectives/progress.h"

#include <algorithm>
#include <utility>

namespace annulus {

class ProgressEngine::Handle final : public Transfer {
 public:
  Handle(std::shared_ptr<ProgressEngine> progress, std::shared_ptr<Entry> entry)
      : progress_(std::move(progress)), entry_(std::move(entry)) {}
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() override {
    if (!entry_->complete) std::erase(progress_->unfinished_, entry_);
  }

  bool test() override {
    if (!entry_->complete) progress_->advance_all();
    return entry_->complete;
  }
  Transport transport() const override { return entry_->transport; }

 private:
  const std::shared_ptr<ProgressEngine> progress_;
  const std::shared_ptr<Entry> entry_;
};

Communicator::Pending ProgressEngine::start(const std::shared_ptr<ProgressEngine>& progress,
                                            std::unique_ptr<Operation> operation) {
  auto entry = std::make_shared<Entry>(Entry{std::move(operation)});
  progress->unfinished_.push_back(entry);
  return std::make_unique<Handle>(progress, std::move(entry));
}

void ProgressEngine::advance_all() {
  for (const std::shared_ptr<Entry>& entry : unfinished_) {
    entry->complete = entry->operation->advance();
    if (!entry->complete) continue;
    entry->transport = entry->operation->transport();
    entry->operation.reset();
  }
  std::erase_if(unfinished_, [](const std::shared_ptr<Entry>& entry) { return entry->complete; });
}

Communicator::Pending completed_transfer(Transport transport) {
  class Completed final : public Transfer {
   public:
    explicit Completed(Transport how) : how_(how) {}
    bool test() override { return true; }
    Transport transport() const override { return how_; }

   private:
    Transport how_;
  };
  return std::make_unique<Completed>(transport);
}

}  // namespace annulus
