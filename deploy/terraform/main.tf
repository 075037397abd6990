# An example, not a module to depend on: the bucket, its key, and one role for each of who needs it.
#
# NOT APPLIED: formatted and parsed only. The policies are those of deploy/iam, which a test tries against an S3 that
# enforces them. The roles trust EKS Pod Identity; for IRSA replace `trust`.

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = { source = "hashicorp/aws", version = ">= 5.40" }
  }
}

variable "bucket" {
  type        = string
  description = "Name of the bucket for credentials and sealed keys."
}

variable "prefix" {
  type        = string
  default     = "v1"
  description = "What every key in the bucket begins with, without slashes; one for each platform."
}

locals {
  roles = toset(["issuer", "revocation", "client-administrator", "administrator"])
  policies = {
    for role in local.roles : role => replace(replace(
      file("${path.module}/../iam/${role}.json"), "BUCKET", var.bucket), "PREFIX", var.prefix
    )
  }
}

resource "aws_kms_key" "credentials" {
  description             = "Tokenry: credentials and sealed signing keys at rest"
  enable_key_rotation     = true
  deletion_window_in_days = 30
}

resource "aws_s3_bucket" "credentials" {
  bucket = var.bucket
  lifecycle { prevent_destroy = true }
}

# A wrong or malicious write can be taken back.
resource "aws_s3_bucket_versioning" "credentials" {
  bucket = aws_s3_bucket.credentials.id
  versioning_configuration { status = "Enabled" }
}

resource "aws_s3_bucket_lifecycle_configuration" "credentials" {
  bucket = aws_s3_bucket.credentials.id
  rule {
    id     = "old-versions"
    status = "Enabled"
    filter {}
    noncurrent_version_expiration { noncurrent_days = 90 }
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "credentials" {
  bucket = aws_s3_bucket.credentials.id
  rule {
    bucket_key_enabled = true
    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.credentials.arn
    }
  }
}

resource "aws_s3_bucket_public_access_block" "credentials" {
  bucket                  = aws_s3_bucket.credentials.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

data "aws_iam_policy_document" "tls_only" {
  statement {
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [aws_s3_bucket.credentials.arn, "${aws_s3_bucket.credentials.arn}/*"]
    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_s3_bucket_policy" "credentials" {
  bucket = aws_s3_bucket.credentials.id
  policy = data.aws_iam_policy_document.tls_only.json
}

data "aws_iam_policy_document" "trust" {
  statement {
    actions = ["sts:AssumeRole", "sts:TagSession"]
    principals {
      type        = "Service"
      identifiers = ["pods.eks.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "kms" {
  for_each = local.roles
  statement {
    actions   = each.key == "administrator" ? ["kms:Decrypt", "kms:GenerateDataKey"] : ["kms:Decrypt"]
    resources = [aws_kms_key.credentials.arn]
  }
}

resource "aws_iam_role" "tokenry" {
  for_each           = local.roles
  name               = "tokenry-${each.key}"
  assume_role_policy = data.aws_iam_policy_document.trust.json
}

resource "aws_iam_role_policy" "objects" {
  for_each = local.roles
  name     = "objects"
  role     = aws_iam_role.tokenry[each.key].id
  policy   = local.policies[each.key]
}

resource "aws_iam_role_policy" "kms" {
  for_each = local.roles
  name     = "kms"
  role     = aws_iam_role.tokenry[each.key].id
  policy   = data.aws_iam_policy_document.kms[each.key].json
}

output "role_arns" {
  value       = { for role in local.roles : role => aws_iam_role.tokenry[role].arn }
  description = "For serviceAccountAnnotations, or for the Pod Identity associations."
}
