"""What tests share; each says where it is unrealistic."""
