// Task<T>: an asynchronous operation, written as a coroutine and awaited with co_await.
#ifndef POSTKEEPER_ZKSTORE_TASK_H_
#define POSTKEEPER_ZKSTORE_TASK_H_

#include <asio/any_io_executor.hpp>
#include <asio/awaitable.hpp>
#include <asio/co_spawn.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <utility>

namespace postkeeper {

template <typename T>
using Task = asio::awaitable<T>;

// Starts `task` on `executor` and lets it run to its end on its own. Our code reports errors as values, so an exception
// that reaches this point is a broken invariant (out of memory, a bug in a library): the process stops with its text.
template <typename T>
void Spawn(asio::any_io_executor executor, Task<T> task) {
  asio::co_spawn(executor, std::move(task), [](std::exception_ptr failure, auto&&...) {
    if (!failure) return;
    try {
      std::rethrow_exception(failure);
    } catch (const std::exception& e) {
      std::fprintf(stderr, "postkeeper: a task ended with an exception: %s\n", e.what());
    }
    std::abort();
  });
}

}  // namespace postkeeper

#endif  // POSTKEEPER_ZKSTORE_TASK_H_
