#include "collectives/mpi_group.h"

#include <fmt/format.h>

#include <algorithm>

namespace annulus {
namespace {

MPI_Datatype type_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return MPI_FLOAT;
    case DType::f64:
      return MPI_DOUBLE;
    case DType::i32:
      return MPI_INT32_T;
    case DType::bf16:
    case DType::f16:
      return MPI_UINT16_T;  // carried as bits: reductions are ours
  }
  return MPI_DATATYPE_NULL;
}

}  // namespace

void check(int code, const MpiGroup& group, const Request& request) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw CollectiveError(
      fmt::format("{} on rank {} of {}: MPI error {}: {}", describe(request), group.rank, group.size, code, text));
}

MpiElements::MpiElements(const MpiGroup& group, const Request& request, std::int64_t count)
    : type_(type_of(request.dtype)), count_(static_cast<int>(count)) {
  const std::int64_t limit = group.shared->options.largest_count;
  if (count * group.size <= limit) return;
  const MPI_Datatype base = type_;
  const std::int64_t blocks = count / limit;
  MPI_Datatype block = MPI_DATATYPE_NULL;
  check(MPI_Type_contiguous(static_cast<int>(limit), base, &block), group, request);
  const int lengths[2] = {static_cast<int>(blocks), static_cast<int>(count % limit)};
  const MPI_Aint offsets[2] = {0, static_cast<MPI_Aint>(blocks * limit * size_of(request.dtype))};
  const MPI_Datatype types[2] = {block, base};
  check(MPI_Type_create_struct(2, lengths, offsets, types, &type_), group, request);
  owned_ = true;
  check(MPI_Type_commit(&type_), group, request);
  MPI_Type_free(&block);
  count_ = 1;
}

MpiElements::~MpiElements() {
  if (owned_) MPI_Type_free(&type_);  // MPI keeps it while a transfer uses it
}

void MpiExchange::send(const std::byte* buffer, std::int64_t count, int peer, int tag) {
  const MpiElements elements(group_, request_, count);
  check(MPI_Isend(buffer, elements.count(), elements.type(), peer, tag, group_.handle, &next()), group_, request_);
}

void MpiExchange::receive(std::byte* buffer, std::int64_t count, int peer, int tag) {
  const MpiElements elements(group_, request_, count);
  check(MPI_Irecv(buffer, elements.count(), elements.type(), peer, tag, group_.handle, &next()), group_, request_);
}

bool MpiExchange::test() {
  int done = 0;
  statuses_.resize(requests_.size());
  const int code = MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done, statuses_.data());
  if (code == MPI_ERR_IN_STATUS) {
    for (const MPI_Status& status : statuses_) {
      if (status.MPI_ERROR != MPI_ERR_PENDING) check(status.MPI_ERROR, group_, request_);
    }
  }
  check(code, group_, request_);
  if (done) requests_.clear();
  return done != 0;
}

bool all_of_group(const MpiGroup& group, bool mine) {
  const std::vector<char> all = gathered(group, static_cast<char>(mine));
  return std::find(all.begin(), all.end(), 0) == all.end();
}

}  // namespace annulus
