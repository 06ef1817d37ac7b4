// The checkers of what a queue's consumers see.
#include <algorithm>

#include "service/queue_engine.h"
#include "tests/support/simulation/checkers.h"
#include "zkstore/simulated_client.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Answer = History::Settle::Answer;

// For what is on its way to the consumer when a lease begins.
constexpr Duration kLeaseSlack = seconds(2);
// From the dispatcher's choice of a message to its delivery: its number is written and its batch is read.
constexpr Duration kOnItsWay = seconds(5);

auto AgeOf(const LeaseToken& token) { return std::pair(token.epoch, token.number); }

using ByPlace = std::map<History::Place, std::vector<const History::Delivery*>>;

ByPlace DeliveriesByPlace(const History& history) {
  ByPlace by_place;
  for (const History::Delivery& delivery : history.deliveries) {
    by_place[{delivery.token.source, delivery.token.position}].push_back(&delivery);
  }
  return by_place;
}

bool IsAcked(const History::Settle& settle) {
  return settle.is_ack && (settle.answer == Answer::kOk || settle.answer == Answer::kAlreadySettled);
}

// G3: a replica that ZooKeeper has not answered for two thirds of the session timeout gives out nothing.
void CheckSelfFence(const History& history, Verdict& verdict) {
  const Duration silence_max = zk::SimulatedClientOptions().session_timeout * 2 / 3 + milliseconds(100);
  for (const History::Delivery& delivery : history.deliveries) {
    verdict.Judge("G3");
    if (delivery.zookeeper_silence <= silence_max) continue;
    verdict.Violate(delivery.given,
                    Cat("G3: ", delivery.text, " is delivered by a replica that ZooKeeper has not answered for ",
                        std::chrono::duration_cast<milliseconds>(delivery.zookeeper_silence).count(), " ms"));
  }
}

// G6, between two givings-out of one message.
void CheckPair(const History::Log& log, const History::Delivery& earlier, const History::Delivery& later,
               Verdict& verdict) {
  const std::string& text = later.text;
  const LeaseToken& token = later.token;
  if (earlier.token == token) verdict.Violate(later.given, Cat("G6: ", text, " was given twice under one token"));
  const bool is_recorded = earlier.token.epoch <= token.epoch && earlier.token.number >= 2;
  if (is_recorded && token.number <= earlier.token.number) {
    verdict.Violate(later.given, Cat("G6: ", text, ": a delivery number was not durable"));
  }
  const bool was_given_back = earlier.given_back && *earlier.given_back < later.given;
  if (was_given_back || later.given.at >= earlier.given.at + log.lease - kLeaseSlack) return;
  if (earlier.token.epoch == token.epoch) verdict.Violate(later.given, Cat("G6: ", text, " has two live leases"));
  const bool was_handed_over = log.handed_over_epochs.contains(static_cast<std::int64_t>(earlier.token.epoch));
  if (earlier.token.epoch + 1 == token.epoch && was_handed_over) {
    verdict.Violate(later.given, Cat("G6: ", text, " has a lease that was handed over, and is delivered again"));
  }
}

// G6: a stale ack settles nothing, and is told so.
void CheckStaleAcks(const History& history, const ByPlace& deliveries, Verdict& verdict) {
  for (const auto& settle : history.settles) {
    if (!settle->is_ack || !settle->answered) continue;
    verdict.Judge("G6");
    const History::Log* log = history.FindLog(settle->token.source);
    if (settle->answer == Answer::kOther && !log->deleted) {
      verdict.Violate(*settle->answered, Cat("G11: the ack of ", settle->text, " is answered: ", settle->detail));
    }
    if (settle->answer != Answer::kOk) continue;
    const auto given = deliveries.find({settle->token.source, settle->token.position});
    if (given == deliveries.end()) continue;
    const bool is_outdated = std::any_of(given->second.begin(), given->second.end(), [&](const auto* delivery) {
      return delivery->given < settle->sent && AgeOf(delivery->token) > AgeOf(settle->token);
    });
    if (is_outdated) verdict.Violate(*settle->answered, Cat("G6: a stale ack settled ", settle->text));
  }
}

// G6: what a stream's client holds is not given out again by the owner that was told of it, or that had to wait for it.
void CheckAnnouncements(const History& history, const ByPlace& deliveries, Verdict& verdict) {
  for (const History::Announcement& announced : history.announcements) {
    const LeaseToken& token = announced.token;
    const auto token_epoch = static_cast<std::int64_t>(token.epoch);
    const auto given = deliveries.find({token.source, token.position});
    const History::Log* log = history.FindLog(token.source);
    const auto found_reign = log->reigns.find(announced.epoch);
    if (given == deliveries.end() || found_reign == log->reigns.end()) continue;
    const History::Log::Reign reign = found_reign->second;
    if (token_epoch < reign.first_before) continue;
    const auto is_of_reign = [&](std::uint64_t epoch) {
      const auto of = log->reigns.find(static_cast<std::int64_t>(epoch));
      return of != log->reigns.end() && of->second.first == reign.first;
    };
    const auto taken = log->taken_at.find(reign.first);
    const bool was_awaited = token_epoch < reign.first && taken != log->taken_at.end() &&
                             announced.when.at < taken->second + QueueEngine::kAnnouncementPatience;
    // Past the wait the owner may have given it out before it heard of the lease, and be reading its batch.
    if (token_epoch < reign.first && !was_awaited) continue;
    const auto is_newer = [&](const History::Delivery* delivery) {
      return delivery->given < announced.when && AgeOf(delivery->token) > AgeOf(token) &&
             !(was_awaited && is_of_reign(delivery->token.epoch));
    };
    const auto is_given_back = [&](const History::Delivery* delivery) {
      return delivery->token == token && delivery->given_back &&
             delivery->given_back->at < announced.when.at + seconds(1);
    };
    if (std::any_of(given->second.begin(), given->second.end(), is_newer) ||
        std::any_of(given->second.begin(), given->second.end(), is_given_back)) {
      continue;
    }
    verdict.Judge("G6");
    for (const History::Delivery* delivery : given->second) {
      // A higher number: there was a giving-out in between that nobody saw.
      const bool is_next = delivery->token.number <= token.number + 1;
      // It may have been on its way already, its number being written.
      const bool was_given_before = token_epoch >= reign.first && delivery->given.at < announced.when.at + kOnItsWay;
      const bool is_again = is_next && !was_given_before && is_of_reign(delivery->token.epoch) &&
                            AgeOf(delivery->token) > AgeOf(token) &&
                            delivery->given.at < announced.when.at + announced.remaining - kLeaseSlack;
      const bool was_given_back_before = std::any_of(given->second.begin(), given->second.end(), [&](const auto* held) {
        return held->token == token && held->given_back && *held->given_back < delivery->given;
      });
      if (!is_again || was_given_back_before) continue;
      verdict.Violate(delivery->given,
                      Cat("G6: ", delivery->text, " is delivered again although its owner was told who holds it"));
    }
  }
}

}  // namespace

// G3. A delivery of an earlier epoch may still be on its way, or come from an owner that does not know yet that it was
// deposed.
void CheckAckIsFinal(const History& history, Verdict& verdict) {
  CheckSelfFence(history, verdict);
  const ByPlace deliveries = DeliveriesByPlace(history);
  for (const auto& settle : history.settles) {
    if (!IsAcked(*settle)) continue;
    const auto given = deliveries.find({settle->token.source, settle->token.position});
    if (given == deliveries.end()) continue;
    for (const History::Delivery* delivery : given->second) {
      verdict.Judge("G3");
      if (delivery->given < *settle->answered || delivery->token.epoch < settle->epoch) continue;
      verdict.Violate(delivery->given, Cat("G3: ", delivery->text, " is delivered after its ack was answered OK"));
    }
  }
}

void CheckOneHolder(const History& history, Verdict& verdict) {
  const ByPlace by_place = DeliveriesByPlace(history);
  for (const auto& [place, deliveries] : by_place) {
    const History::Log* log = history.FindLog(place.first);
    for (std::size_t later = 1; later < deliveries.size(); ++later) {
      for (std::size_t earlier = 0; earlier < later; ++earlier) {
        verdict.Judge("G6");
        CheckPair(*log, *deliveries[earlier], *deliveries[later], verdict);
      }
    }
  }
  CheckStaleAcks(history, by_place, verdict);
  CheckAnnouncements(history, by_place, verdict);
}

// G5: first attempts come in the order of the log, in one epoch: within each stream, and behind what was given out
// before the call. Two calls at the same time may be answered in any order.
void CheckDeliveryOrder(const History& history, Verdict& verdict) {
  std::set<std::string> delayed;
  for (const auto& append : history.appends) {
    if (append->is_delayed) delayed.insert(append->texts.begin(), append->texts.end());
  }
  std::set<History::Place> seen;
  using Epoch = std::pair<Uid, std::uint64_t>;
  std::map<Epoch, std::vector<std::pair<std::uint64_t, Position>>> furthest;  // as it grew
  std::map<std::pair<Epoch, int>, Position> last_of_stream;
  for (const History::Delivery& delivery : history.deliveries) {
    const bool is_first = seen.emplace(delivery.token.source, delivery.token.position).second;
    if (!is_first || delivery.attempt != 1 || delivery.token.number != 1 || delayed.contains(delivery.text)) continue;
    const Epoch epoch{delivery.token.source, delivery.token.epoch};
    auto& grown = furthest[epoch];
    const auto behind = std::partition_point(grown.begin(), grown.end(),
                                             [&](const auto& step) { return step.first < delivery.asked.number; });
    Position before = behind == grown.begin() ? Position() : std::prev(behind)->second;
    if (delivery.stream != 0) {
      Position& last = last_of_stream[{epoch, delivery.stream}];
      before = std::max(before, last);
      last = std::max(last, delivery.token.position);
    }
    verdict.Judge("G5");
    if (delivery.token.position <= before) {
      verdict.Violate(delivery.given, Cat("G5: ", delivery.text, " comes first after a later one"));
    }
    const Position far = grown.empty() ? Position() : grown.back().second;
    grown.emplace_back(delivery.given.number, std::max(far, delivery.token.position));
  }
}

// G2: every message in a queue was delivered and acked at the end.
void CheckQueuesEmpty(const History& history, Verdict& verdict) {
  std::set<History::Place> acked;
  for (const auto& settle : history.settles) {
    if (IsAcked(*settle)) acked.emplace(settle->token.source, settle->token.position);
  }
  const ByPlace deliveries = DeliveriesByPlace(history);
  for (const auto& [place, stored] : history.stored) {
    const History::Log* log = history.FindLog(place.first);
    if (log == nullptr || !log->is_queue || log->deleted) continue;
    verdict.Judge("G2");
    if (acked.contains(place)) continue;
    if (!deliveries.contains(place)) {
      verdict.Violate(stored.created, Cat("G2: ", stored.text, " in ", log->name, " is never delivered"));
    } else if (stored.deleted) {
      verdict.Violate(*stored.deleted, Cat("G2: ", stored.text, " in ", log->name, " is gone without an ack"));
    } else {
      verdict.Violate(stored.created,
                      Cat("G2: ", stored.text, " in ", log->name, " is not delivered until it is acked"));
    }
  }
  for (const History::Delivery& delivery : history.deliveries) {
    const auto stored = history.stored.find({delivery.token.source, delivery.token.position});
    const bool is_it = stored != history.stored.end() && stored->second.text == delivery.text &&
                       stored->second.message_id == delivery.message_id;
    if (!is_it) verdict.Violate(delivery.given, Cat("G2: ", delivery.text, " is delivered and does not stand there"));
  }
}

}  // namespace postkeeper
