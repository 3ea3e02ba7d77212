#include "bridges/base/peer.h"

#include <poll.h>

namespace runnel::bridge {

Peer LookAtPeer(int socket) {
  pollfd entry{socket, POLLRDHUP, 0};
  if (poll(&entry, 1, 0) <= 0) return Peer::kThere;
  if ((entry.revents & (POLLERR | POLLHUP | POLLNVAL)) != 0) return Peer::kGone;
  return (entry.revents & POLLRDHUP) != 0 ? Peer::kHalfClosed : Peer::kThere;
}

}  // namespace runnel::bridge
