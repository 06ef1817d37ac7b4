#include "service/owner_route.h"

#include <optional>

#include "service/engine_context.h"
#include "zkstore/mutation.h"
#include "zkstore/signal.h"

namespace postkeeper {
namespace {

// Between two looks for the owner when the one asked says that it is another.
constexpr Duration kRelayPause = std::chrono::milliseconds(50);

OwnerRoute Route(OwnerRoute::Kind kind, std::string owner = "") { return {kind, std::move(owner)}; }

}  // namespace

Task<OwnerRoute> RouteToOwner(Environment& environment, LogHandle log, bool is_relayed, PeerLink& link) {
  const Instant give_up_at = environment.Now() + kOwnerPatience;
  std::string address;
  for (Instant now = environment.Now(); !log.is_serving() && now < give_up_at && !link.IsOver();
       now = environment.Now()) {
    const std::optional<std::string> owner = co_await log.FindOwner(give_up_at - now);
    if (!owner) co_return Route(OwnerRoute::Kind::kHere);
    address = *owner;
    if (is_relayed && !IsMutated(Mutation::kHopLoop)) break;
    const bool is_connected = co_await link.Connect(address);
    if (is_connected) {
      const PeerLink::Outcome outcome = co_await link.Relay(address);
      if (outcome == PeerLink::Outcome::kAnswered) co_return Route(OwnerRoute::Kind::kRelayed);
      const bool is_broken = outcome == PeerLink::Outcome::kBroken && !IsMutated(Mutation::kRelayTwice);
      if (is_broken && IsMutated(Mutation::kBrokenIsRefused)) break;
      if (is_broken) co_return Route(OwnerRoute::Kind::kBroken);
    }
    co_await SleepFor(environment, kRelayPause);
  }
  if (log.is_serving()) co_return Route(OwnerRoute::Kind::kHere);
  co_return Route(OwnerRoute::Kind::kNowhere, address);
}

Task<AppendRoute> RouteAppend(LogHandle log, AppendSize append, bool is_relayed) {
  if (log.is_serving() || append.has_id || is_relayed) co_return AppendRoute::kOwner;
  if (log.HasRoomFor(append)) co_return AppendRoute::kHere;
  const absl::Status looked = co_await log.room().LookIfNeeded(append);
  if (absl::IsNotFound(looked)) {
    log.SetGone();
    co_return AppendRoute::kGone;
  }
  co_return looked.ok() && log.HasRoomFor(append) ? AppendRoute::kHere : AppendRoute::kOwner;
}

}  // namespace postkeeper
