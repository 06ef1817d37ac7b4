#include "service/held_leases.h"

#include <algorithm>

#include "service/consume_leg.h"

namespace postkeeper {

HeldLeases::HeldLeases(const CheckedOpen& open, const std::vector<HeldLease>& held, Instant now)
    : is_credit_manual_(open.is_credit_manual), keeps_leases_(open.keeps_leases), granted_(open.credit) {
  for (const HeldLease& lease : held) {
    granted_.messages += 1;
    granted_.bytes += lease.bytes;
    Add(lease, now);
  }
}

void HeldLeases::Add(const HeldLease& lease, Instant now) {
  if (is_credit_manual_) {
    granted_.messages -= 1;
    granted_.bytes -= lease.bytes;
  }
  if (const auto earlier = held_.find(lease.token.position); earlier != held_.end()) Drop(earlier);
  if (held_.size() >= kHeldLeasesMax) DropLapsed(now);
  if (held_.size() >= kHeldLeasesMax) Drop(held_.find(by_order_.begin()->second));
  const Instant deadline = keeps_leases_ ? Instant::max() : now + lease.remaining;
  held_[lease.token.position] = {lease, deadline, ++last_order_};
  by_order_[last_order_] = lease.token.position;
  in_use_.messages += 1;
  in_use_.bytes += lease.bytes;
  first_lapse_ = std::min(first_lapse_, deadline);
}

void HeldLeases::OnSettling(const LeaseToken& token) {
  const auto found = held_.find(token.position);
  if (found == held_.end() || found->second.given.token != token) return;
  by_order_.erase(found->second.order);
  found->second.order = --first_order_;
  by_order_[first_order_] = token.position;
}

void HeldLeases::Remove(const LeaseToken& token) {
  const auto found = held_.find(token.position);
  if (found != held_.end() && found->second.given.token == token) Drop(found);
}

void HeldLeases::Extend(const LeaseToken& token, Duration lease, Instant now) {
  const auto found = held_.find(token.position);
  if (found == held_.end() || found->second.given.token != token || keeps_leases_) return;
  found->second.deadline = now + lease;
  first_lapse_ = std::min(first_lapse_, now + lease);
}

absl::Status HeldLeases::AddCredit(const CheckedCredit& credit, Instant now) {
  const absl::StatusOr<CheckedCredit> sum = ::postkeeper::AddCredit(CreditLeft(now), credit);
  if (!sum.ok()) return sum.status();
  granted_.messages += credit.messages;
  granted_.bytes += credit.bytes;
  return absl::OkStatus();
}

CheckedCredit HeldLeases::CreditLeft(Instant now) {
  DropLapsed(now);
  CheckedCredit left = granted_;
  if (!is_credit_manual_) {
    left.messages -= in_use_.messages;
    left.bytes -= in_use_.bytes;
  }
  left.messages = std::max<std::int64_t>(left.messages, 0);
  if (is_credit_manual_) return left;
  return {std::min(left.messages, kCreditMessagesMax), std::min(left.bytes, kCreditBytesMax)};
}

std::vector<HeldLease> HeldLeases::Held(Instant now) {
  DropLapsed(now);
  std::vector<HeldLease> held;
  held.reserve(held_.size());
  for (const auto& [position, lease] : held_) {
    held.push_back(lease.given);
    if (!keeps_leases_) held.back().remaining = lease.deadline - now;
  }
  return held;
}

void HeldLeases::DropLapsed(Instant now) {
  if (now < first_lapse_) return;
  first_lapse_ = Instant::max();
  for (auto lease = held_.begin(); lease != held_.end();) {
    if (lease->second.deadline <= now) {
      lease = Drop(lease);
    } else {
      first_lapse_ = std::min(first_lapse_, lease->second.deadline);
      ++lease;
    }
  }
}

HeldLeases::Leases::iterator HeldLeases::Drop(Leases::iterator lease) {
  in_use_.messages -= 1;
  in_use_.bytes -= lease->second.given.bytes;
  by_order_.erase(lease->second.order);
  return held_.erase(lease);
}

}  // namespace postkeeper
