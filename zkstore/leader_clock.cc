#include "zkstore/leader_clock.h"

#include "zkstore/owner.h"

namespace postkeeper {

Task<absl::StatusOr<WallTime>> LeaderClock::Now() {
  std::optional<Told> told;
  {
    absl::MutexLock lock(&mutex_);
    told = told_;
  }
  if (!told || environment_.Now() - told->at >= kAskAgainAfter) {
    const zk::Response registration = co_await client_.Get(path_);
    if (registration.code != zk::Code::kOk) co_return UnavailableError(registration, "tell the time");
    const zk::Response written = co_await client_.Set(path_, registration.data, registration.stat.version);
    if (written.code != zk::Code::kOk) co_return UnavailableError(written, "tell the time");
    told = Told{WallTime(std::chrono::milliseconds(written.stat.mtime_ms)), environment_.Now()};
    absl::MutexLock lock(&mutex_);
    told_ = told;
  }
  co_return told->time + std::chrono::floor<std::chrono::milliseconds>(environment_.Now() - told->at);
}

}  // namespace postkeeper
