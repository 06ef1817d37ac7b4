// What the dispatcher keeps of one message, and the lists that run through it. For dispatcher.cc only.
#ifndef POSTKEEPER_SERVICE_DISPATCHER_ENTRY_H_
#define POSTKEEPER_SERVICE_DISPATCHER_ENTRY_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "service/slab.h"
#include "zkstore/environment.h"
#include "zkstore/position.h"

namespace postkeeper::dispatching {

// What is known of one message. Counted in millions, so every byte is worth a thought; texts are kept apart.
struct Entry {
  using Reference = std::uint32_t;  // Slab<Entry>::Reference, which can't be named before Entry is complete
  static constexpr Reference kNone = ~Reference{0};

  enum class State : std::uint8_t {
    kReadyInOrder,  // in Dispatcher::Impl::in_order_, and so on
    kReadyApart,    // in apart_
    kDelayed,       // in alarms_, at its due time
    kLeased,        // in alarms_, at its deadline, and in holders_
  };
  enum class Reason : std::uint8_t { kNone, kLeaseLapsed, kText };  // kText: in reasons_

  struct Links {
    Reference previous = kNone;
    Reference next = kNone;
  };

  Position position;
  Instant enqueued{};
  Instant time{};       // leased or lapsed: the deadline; otherwise when it was or will be ready
  Instant delivered{};  // the latest delivery: lease_max counts from here
  std::uint64_t holder = 0;
  std::int32_t bytes = 0;
  std::uint32_t number = 0;
  std::int32_t attempts = 0;
  Links queue;     // in in_order_ or in a list of alarms_
  Links siblings;  // in a list of holders_
  State state = State::kReadyApart;
  Reason reason = Reason::kNone;
  bool is_given_up = false;  // the latest giving-out was nacked or released
  bool was_given_out = false;
};
static_assert(sizeof(Entry) <= 72);
static_assert(Entry::kNone == Slab<Entry>::kNone);

// A doubly linked list through the entries themselves: no memory of its own, removal in constant time.
struct List {
  Entry::Reference first = Entry::kNone;
  Entry::Reference last = Entry::kNone;

  bool empty() const { return first == Entry::kNone; }

  template <Entry::Links Entry::*links>
  void Append(Slab<Entry>& entries, Entry::Reference reference) {
    entries[reference].*links = {.previous = last, .next = Entry::kNone};
    (empty() ? first : (entries[last].*links).next) = reference;
    last = reference;
  }

  template <Entry::Links Entry::*links>
  void Remove(Slab<Entry>& entries, Entry::Reference reference) {
    const Entry::Links own = entries[reference].*links;
    (own.previous == Entry::kNone ? first : (entries[own.previous].*links).next) = own.next;
    (own.next == Entry::kNone ? last : (entries[own.next].*links).previous) = own.previous;
  }

  template <Entry::Links Entry::*links>
  std::vector<Entry::Reference> ByPosition(const Slab<Entry>& entries) const {
    std::vector<Entry::Reference> found;
    for (Entry::Reference at = first; at != Entry::kNone; at = (entries[at].*links).next) found.push_back(at);
    std::sort(found.begin(), found.end(),
              [&entries](Entry::Reference a, Entry::Reference b) { return entries[a].position < entries[b].position; });
    return found;
  }
};

}  // namespace postkeeper::dispatching

#endif  // POSTKEEPER_SERVICE_DISPATCHER_ENTRY_H_
