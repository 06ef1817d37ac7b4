// Answers that become known in any order and are given in the order asked.
#ifndef POSTKEEPER_SERVICE_ORDERED_ANSWERS_H_
#define POSTKEEPER_SERVICE_ORDERED_ANSWERS_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <utility>

namespace postkeeper {

// A stream asks for a ticket per frame that is to be answered, and gives the answer when it is known. Next returns the
// answers in the order of the tickets, each once.
//
// Not bounded by itself: a stream stops reading while too many of its frames are unanswered. Not thread-safe.
template <typename Answer>
class OrderedAnswers {
 public:
  using Ticket = std::uint64_t;

  Ticket Ask() {
    slots_.emplace_back();
    return first_ + slots_.size() - 1;
  }

  // To be called once for each ticket.
  void Give(Ticket ticket, Answer answer) { slots_[ticket - first_] = std::move(answer); }

  // True if Next would return something.
  bool has_next() const { return !slots_.empty() && slots_.front().has_value(); }

  // The answer of the oldest ticket, if it is known.
  std::optional<Answer> Next() {
    if (!has_next()) return std::nullopt;
    std::optional<Answer> answer = std::move(slots_.front());
    slots_.pop_front();
    ++first_;
    return answer;
  }

  // Tickets whose answer was not returned yet.
  std::size_t size() const { return slots_.size(); }
  bool empty() const { return slots_.empty(); }

 private:
  std::deque<std::optional<Answer>> slots_;
  Ticket first_ = 0;  // of the front
};

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_ORDERED_ANSWERS_H_
