// SPDX-License-Identifier: Apache-2.0
// Watcher: how the backends of a service are found at a server that tells of changes by HTTP, as one request
// after the other: a list first, then what has happened since, for as long as the server likes. Or whatever
// else is said to a server that way (tools/etcd_announcer.h).
//
// Nothing here waits or acts; WatchThread sends the requests and says what has become of them.

#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "net/balancer/found.h"
#include "tools/http_origin.h"
#include "tools/http_request.h"

namespace shunt {

class Watcher {
 public:
  struct Ask {
    HttpOrigin origin;
    std::string path;
    std::optional<std::string> post;  // nothing: GET
    std::string authorization;
    // An answer in lines that does not end by itself: OnLine() hears it, OnEnd() that it has ended, without a
    // body. What is not is answered as a whole, within kAnswerWithin.
    bool streams = false;
    // Of a stream. It counts as ended after that, so that a server is asked again of which nothing has been
    // heard for long.
    std::chrono::milliseconds longest{0};
  };

  using Hear = std::function<void(std::vector<net::BackendSpec>, absl::Status missing)>;
  // Of one that finds services.
  struct HearServices {
    std::function<void(net::FoundChanges)> found;
    std::function<void()> right;
  };

  virtual ~Watcher() = default;

  // Before the first request. Who hears the lists that are found, from within the calls below.
  void TellTo(Hear found) { found_ = std::move(found); }
  void TellTo(HearServices services) { services_ = std::move(services); }

  // For messages: "etcd http://127.0.0.1:2379 /services/orders/".
  virtual std::string Title() const = 0;
  // How long there is nothing to ask, unless WatchThread::Wake() is called. 0: Next() is next.
  virtual std::chrono::milliseconds Rest() { return std::chrono::milliseconds(0); }
  // What to ask next. An error: why nothing can be asked; it is told, and there is another try later.
  virtual absl::StatusOr<Ask> Next() = 0;
  // A stream has begun, so the server answers; there may be no line for long.
  virtual void OnStream() {}
  // A line of a stream. An error ends it, as if the server had.
  virtual absl::Status OnLine(absl::string_view line) = 0;
  // A request has been answered, with any code, or a stream has ended. OK: Next() at once. An error is told,
  // and Next() comes after a pause.
  virtual absl::Status OnAnswer(const HttpAnswer& answer) = 0;
  // No answer at all, or its end was not to be seen, or OnLine() has refused it: what is returned from here
  // counts as if OnAnswer() had returned it.
  virtual absl::Status OnFailure(absl::Status why) { return why; }
  // All that has come so far has been heard: what was put off to be told together, is told.
  virtual void OnPause() {}

 protected:
  // A list, whole: when there is another one, and when a server answers again after an error, which is how
  // one hears of that. `missing`: what is wrong with what is not on it. From OnStream(), OnLine() and
  // OnAnswer().
  void Found(std::vector<net::BackendSpec> backends, absl::Status missing = absl::OkStatus()) {
    found_(std::move(backends), std::move(missing));
  }
  // Of services: what has become of them, and that the server answers. From OnPause() as well.
  void FoundServices(net::FoundChanges changes) { services_.found(std::move(changes)); }
  void IsRight() { services_.right(); }

 private:
  Hear found_;
  HearServices services_;
};

}  // namespace shunt
