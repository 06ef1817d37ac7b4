#include "zkstore/owner_census.h"

#include <algorithm>
#include <utility>

#include "zkstore/errors.h"
#include "zkstore/owner.h"

namespace postkeeper {

struct OwnerCensus::Round {
  Round(Environment& environment, const asio::any_io_executor& strand) : reader_ended(environment, strand) {}

  std::vector<Uid> logs;
  std::size_t next = 0;  // the first that nobody reads yet
  int readers_left = 0;
  Counts counts;
  absl::Status error;  // the first; ends the round
  Signal reader_ended;
};

OwnerCensus::OwnerCensus(Environment& environment, zk::Client& client, const Layout& layout)
    : environment_(environment),
      client_(client),
      layout_(layout),
      strand_(environment.MakeStrand()),
      counted_(environment, strand_) {}

Task<absl::StatusOr<std::shared_ptr<const OwnerCensus::Counts>>> OwnerCensus::Take() {
  Task<absl::StatusOr<std::shared_ptr<const Counts>>> taking = TakeOnStrand(shared_from_this());
  co_return co_await asio::co_spawn(strand_, std::move(taking), asio::use_awaitable);
}

Task<absl::StatusOr<std::shared_ptr<const OwnerCensus::Counts>>> OwnerCensus::TakeOnStrand(
    std::shared_ptr<OwnerCensus> self) {
  (void)self;  // keeps this alive
  while (is_counting_) co_await counted_.Wait();
  const Instant begun = environment_.Now();
  if (begun < rests_until_) co_return latest_;
  is_counting_ = true;
  latest_ = co_await Count();
  is_counting_ = false;
  const Instant now = environment_.Now();
  rests_until_ = now + std::max<Duration>(kRestMin, kRestFactor * (now - begun));
  counted_.Notify();
  co_return latest_;
}

Task<absl::StatusOr<std::shared_ptr<const OwnerCensus::Counts>>> OwnerCensus::Count() {
  const zk::Response list = co_await client_.Children(layout_.Data());
  if (list.code != zk::Code::kOk) co_return UnavailableError(list, "list the logs");
  const auto round = std::make_shared<Round>(environment_, strand_);
  for (const std::string& name : list.children) {
    const std::optional<Uid> log = Uid::FromHex(name);
    if (log && round->logs.size() < kLogsMax) round->logs.push_back(*log);
  }
  round->readers_left = static_cast<int>(std::min<std::size_t>(kReadsAtATime, round->logs.size()));
  const int readers = round->readers_left;
  for (int i = 0; i < readers; ++i) Spawn(strand_, ReadOwners(shared_from_this(), round));
  while (round->readers_left > 0) co_await round->reader_ended.Wait();
  if (!round->error.ok()) co_return round->error;
  co_return std::make_shared<const Counts>(std::move(round->counts));
}

Task<void> OwnerCensus::ReadOwners(std::shared_ptr<OwnerCensus> self, std::shared_ptr<Round> round) {
  (void)self;  // keeps this alive
  while (round->error.ok() && round->next < round->logs.size()) {
    const Uid log = round->logs[round->next++];
    const absl::StatusOr<OwnerView> owner = co_await ReadOwner(client_, layout_, log);
    if (owner.ok()) {
      if (owner->state == OwnerView::State::kProcess) ++round->counts[owner->process];
    } else if (HasReason(owner.status(), Reason::kZookeeperUnavailable)) {
      round->error = owner.status();
    }
  }
  --round->readers_left;
  round->reader_ended.Notify();
}

}  // namespace postkeeper
