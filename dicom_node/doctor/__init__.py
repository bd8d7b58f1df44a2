"""What `dicom-node doctor` looks at: one file a subject, each a function that yields findings; nothing is changed."""
